//! The read side of Annals: workers that build read models, and queries of any moment.

// The derive macros name this crate by its absolute path, also inside it.
extern crate self as annals_projections;

mod column;
mod engine;
mod error;
mod fold;
mod install;
mod query;
mod read_model;
mod shape;
mod table;
pub mod testkit;
mod worker;

#[doc(no_inline)]
pub use annals_derive::ReadModel;

pub use self::{
    column::{Column, SqlParam},
    error::Error as ProjectionError,
    install::reset,
    query::{Consistency, Query, QueryReadModels},
    read_model::{
        Change, ColumnDef, History, KeyError, Keys, Project, ReadModel, RowKey, Source, Step,
        StepError,
    },
    worker::Worker,
};

/// What the derive macros' output refers to. Not public API.
#[doc(hidden)]
pub mod __private {
    pub use postgres_types::Json;
    pub use tokio_postgres::{Error as PostgresError, Row};

    pub use crate::{Column, ColumnDef, History, ReadModel, Source, SqlParam};
}
