//! What the store's test programs share: a database for each test, clients of its own, an aggregate.
#![allow(dead_code, unused_imports, reason = "each test program uses a part of it")]

pub(crate) mod database;
pub(crate) mod direct;
pub(crate) mod outcomes;
pub(crate) mod pooler;
pub(crate) mod server;
pub(crate) mod waiting;
pub(crate) mod warnings;

pub(crate) use annals_eventstore::conformance::support::*;
use annals_eventstore::testkit::faults::Link;

pub(crate) use self::{
    database::{TestDatabase, kill, patient, server},
    waiting::{eventually, in_time, is_waiting, text},
};

impl TestDatabase {
    /// A pooler in transaction mode before this database.
    pub(crate) async fn pooler(&self) -> pooler::Pooler {
        pooler::Pooler::start(&self.config()).await
    }

    /// A way to this database that can be disturbed.
    pub(crate) async fn link(&self) -> Link {
        Link::postgres(&self.url()).await.unwrap()
    }
}
