//! The read side of Annals: workers that build read models, and queries of any moment.
//!
//! A [`ReadModel`] is a struct that stands for a row of a table. [`Project`] says how an event changes
//! a row. A [`Worker`] feeds the log to it, and [`QueryReadModels::query`] asks it:
//!
//! ```no_run
//! # use annals_eventstore::{Aggregate, Apply, AsOf, Event, EventStore, Recorded};
//! # use annals_projections::{Change, Project, QueryReadModels, ReadModel, Worker};
//! # use serde::{Deserialize, Serialize};
//! # #[derive(Event, Serialize, Deserialize)]
//! # enum AccountEvent { Deposited { amount: i64 } }
//! # #[derive(Aggregate, Default)]
//! # #[aggregate(category = "account", event = AccountEvent)]
//! # struct Account;
//! # impl Apply<AccountEvent> for Account { fn apply(&mut self, _: &AccountEvent) {} }
//! #[derive(ReadModel, Clone)]
//! #[read_model(table = "account_overview", from(Account), history)]
//! struct AccountOverview {
//!     #[read_model(key)]
//!     account: String,
//!     balance: i64,
//! }
//!
//! impl Project<AccountEvent> for AccountOverview {
//!     fn project(row: Option<Self>, event: &Recorded<AccountEvent>) -> Change<Self> {
//!         let AccountEvent::Deposited { amount } = event.event;
//!         let balance = row.map_or(0, |row| row.balance) + amount;
//!         Change::Set(AccountOverview { account: event.stream.key().to_owned(), balance })
//!     }
//! }
//!
//! # async fn run() -> Result<(), Box<dyn std::error::Error>> {
//! let store = EventStore::connect("postgres://localhost/app").await?;
//! tokio::spawn(Worker::new(&store).projection::<AccountOverview>().run());
//!
//! let now = store.query::<AccountOverview>().get(&"ada".to_owned()).await?;
//! let new_year = AsOf::Time("2012-01-01T00:00:00Z".parse()?);
//! let then = store.query::<AccountOverview>().as_of(new_year).all().await?;
//! # Ok(()) }
//! ```
//!
//! The tables are ordinary tables: query them with SQL as you like. With `history`, three functions come
//! beside each: `account_overview_as_of('2012-01-01')`, by time or by position. They raise an error for a
//! moment that is not over, or that the worker has not come to, rather than answer with less.
//! From a driver, give the parameter a type: `account_overview_as_of($1::timestamptz)` or `$1::bigint`.
//!
//! Rows, history and checkpoint move in one transaction, so each event is applied exactly once. A worker
//! that was paused and replaced changes nothing when it wakes up.
//!
//! A [`SqlProjection`] writes what it likes instead of rows, with the same guarantee, and a [`Reactor`] has effects
//! outside of the database, at least once each, under an id that stays the same. A worker runs them too:
//! [`Worker::sql`], [`Worker::reactor`].
//!
//! A [`Saga`](trait@Saga) does what has to happen in several places, or undoes it in all of them:
//! [`saga`].
//!
//! [`Live`] keeps the rows of the same read model in memory instead, for tests and dashboards.

// The derive macros name this crate by its absolute path, also inside it.
extern crate self as annals_projections;

mod breaking;
mod column;
pub mod control;
mod definition;
mod engine;
mod error;
mod fail_points;
mod fold;
mod guard;
mod inline;
mod install;
mod interval;
#[cfg(feature = "kafka")]
pub mod kafka;
mod live;
pub mod metrics;
mod offsets;
mod page;
mod query;
mod reactor;
mod read_model;
mod rebuild;
mod register;
mod rows;
pub mod saga;
mod shape;
mod sql_projection;
mod start;
mod table;
mod target;
pub mod testkit;
mod worker;

#[doc(no_inline)]
pub use annals_derive::{Column, ReadModel, Saga};
#[doc(no_inline)]
pub use annals_eventstore::postgres::SqlProjection;
/// For implementations of [`SqlProjection`].
#[doc(no_inline)]
pub use async_trait::async_trait;

pub use self::{
    column::{ArrayElement, ArrayText, Column, SqlParam, SqlValue},
    error::{Error as ProjectionError, EventFailure},
    inline::InlineProjections,
    install::{ddl, reset},
    live::{Changes, Cut, Live, LiveOptions, RowChange},
    query::{
        Consistency, Query, QueryCache, QueryCacheOptions, QueryCacheStatistics, QueryReadModels,
        RowDifference, RowVersion, WaitForReadModel, forget_history,
    },
    reactor::{Cause, Effect, React, Reaction, Reactor, ReactorSource, Trigger},
    read_model::{
        Change, ColumnDef, History, IndexDef, KeyError, Keys, Project, ReadModel, RowKey, Source,
        Step, StepError,
    },
    rebuild::{Built, Comparison, Difference, Phase, Progress, Rebuild, Replayed},
    saga::Saga,
    sql_projection::reset_sql,
    start::Start,
    worker::{OnFailure, Worker},
};

/// What the derive macros' output refers to. Not public API.
#[doc(hidden)]
pub mod __private {
    pub use bytes::BytesMut;
    pub use postgres_types::{Format, FromSql, IsNull, ToSql, Type};
    pub use tokio_postgres::{Error as PostgresError, Row};

    pub use crate::{
        ArrayElement, ArrayText, Column, ColumnDef, History, IndexDef, ReadModel, Source, SqlParam,
        SqlValue,
        column::derived::{
            JsonColumn, Named, SqlError, Transparent, checked, format, nullable, param, param_type,
            read_name, receive, receive_null, receives, send, sends, sql_type,
        },
        saga::{Saga, SagaSource},
    };
}
