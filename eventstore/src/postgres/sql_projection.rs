//! Projections in SQL: what rows cannot express.

use async_trait::async_trait;

use super::Client;
use crate::event::Recorded;

type Cause = Box<dyn std::error::Error + Send + Sync>;

/// A projection that writes what it likes, with SQL of its own.
///
/// A worker runs it, behind the appends, or it runs inline, in the transaction of every append of its categories.
/// Either way, what it writes and how far it has come are in one transaction, so each event has its effect exactly
/// once. Read models need no implementation of their own; write one for what they cannot do.
///
/// ```
/// use annals_eventstore::{Recorded, postgres::{Client, SqlProjection}};
///
/// type Cause = Box<dyn std::error::Error + Send + Sync>;
///
/// /// How many events there were on each day.
/// struct Daily {
///     categories: Vec<String>,
/// }
///
/// #[async_trait::async_trait]
/// impl SqlProjection for Daily {
///     fn name(&self) -> &str {
///         "daily"
///     }
///
///     fn categories(&self) -> &[String] {
///         &self.categories
///     }
///
///     async fn install(&self, sql: &Client) -> Result<(), Cause> {
///         Ok(sql.batch_execute("create table daily (day date primary key, events bigint not null)").await?)
///     }
///
///     async fn reset(&self, sql: &Client) -> Result<(), Cause> {
///         Ok(sql.batch_execute("drop table if exists daily").await?)
///     }
///
///     async fn apply(&self, events: &[Recorded], sql: &Client) -> Result<(), Cause> {
///         let days: Vec<_> = events.iter().map(|event| event.recorded_at.date_naive()).collect();
///         let count = "insert into daily select day, count(*) from unnest($1::date[]) day group by day
///                      on conflict (day) do update set events = daily.events + excluded.events";
///         sql.execute(count, &[&days]).await?;
///         Ok(())
///     }
/// }
/// ```
///
/// Do not begin, end or set transactions on the connection. In an append, take no longer than needed: from its
/// positions on, it holds up all who follow the log. In a worker, what waits for something else than the database
/// for longer than the worker's lease lasts is ended and tried again.
#[async_trait]
pub trait SqlProjection: Send + Sync + 'static {
    /// Its name, which it shares with no other projection, read model or reactor.
    fn name(&self) -> &str;

    /// The categories whose events it must see.
    fn categories(&self) -> &[String];

    /// The version of what it makes of events: 1 unless implemented. With a higher one, a worker builds it anew: in
    /// place, from the first event on, once nobody works on the earlier version any more. Until it has caught up,
    /// who reads its tables finds less in them.
    fn version(&self) -> u32 {
        1
    }

    /// In how many slices workers share it: 1 unless implemented. The streams of a slice are those whose keys hash
    /// to it. Slices are worked on at the same time, so [`apply`](Self::apply) must bear that events of other
    /// streams are applied beside it. Another number builds the projection anew. Inline there are none.
    fn slices(&self) -> u16 {
        1
    }

    /// Creates what it needs, tables for example: once, before the first event, in a transaction of its own, while
    /// no other program does the same. Nothing unless implemented.
    ///
    /// # Errors
    /// Whatever goes wrong; nothing is left behind then.
    async fn install(&self, sql: &Client) -> Result<(), Cause> {
        let _ = sql;
        Ok(())
    }

    /// Takes away what it has made, so that it can be built anew; [`install`](Self::install) comes next, in the
    /// same transaction. It is asked for when the version or the number of slices has changed, or when somebody
    /// wants it, so what it finds may have been made by another version.
    ///
    /// # Errors
    /// Whatever goes wrong; nothing has changed then. Unless implemented, it is refused.
    async fn reset(&self, sql: &Client) -> Result<(), Cause> {
        let _ = sql;
        Err("it does not say how it is reset: implement SqlProjection::reset".into())
    }

    /// What the events will write to, where it runs inline; by default anything, so that one append goes after the
    /// other.
    ///
    /// It is asked before the events have positions, versions and recording times. The answer must not
    /// depend on these.
    ///
    /// # Errors
    /// Whatever is wrong with the events; the append fails then.
    async fn locks(&self, events: &[Recorded], sql: &Client) -> Result<InlineLocks, Cause> {
        let _ = (events, sql);
        Ok(InlineLocks::All)
    }

    /// Projects events, in the order of their positions, with statements on `sql`, which is in the
    /// transaction of the append, or of the worker's checkpoint.
    ///
    /// # Errors
    /// Whatever goes wrong; it leaves nothing behind then. The append fails. A worker tries the events one by one,
    /// and the one that fails some more times, before it parks its stream. An event that was parked comes later
    /// than others that are behind it in the log, but never than those of its own stream.
    async fn apply(&self, events: &[Recorded], sql: &Client) -> Result<(), Cause>;
}

/// What an inline projection locks, so that what the same rows are built from comes in order.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum InlineLocks {
    /// The projection as a whole: one append after the other.
    All,
    /// Rows, each by a hash of its key. Every program must come to the same hashes. Rows that share one
    /// only wait for each other.
    Rows(Vec<i32>),
}
