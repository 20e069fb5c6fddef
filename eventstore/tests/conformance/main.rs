//! How every store behaves: each behaviour of the published suite as a test of its own, against
//! PostgreSQL, directly and through a pooler, and against the store in memory. The behaviours are in `src/conformance/`.
#![allow(clippy::unwrap_used, reason = "these are tests")]

mod forms;
mod published;
#[path = "../support/mod.rs"]
mod support;

use std::{sync::Arc, time::Duration};

use annals_eventstore::{
    Error, EventStore, Options,
    conformance::{self, InMemory, Postgres, Stores},
};
use support::TestDatabase;

const PATIENCE: Duration = Duration::from_secs(180);

/// Expands to one test for each behaviour and store.
macro_rules! tests {
    ($($theme:ident $takes:tt { $($behaviour:ident),* $(,)? })*) => {
        mod in_postgres {
            $(mod $theme { $(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $behaviour() {
                    let database = crate::TestDatabase::create().await;
                    let stores = crate::Patient(crate::Postgres::at(database.url()));
                    crate::check(stringify!($theme), stringify!($behaviour), stores).await;
                }
            )* })*
        }
        mod through_a_pooler {
            $(mod $theme { $(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $behaviour() {
                    let database = crate::TestDatabase::create().await;
                    let pooler = database.pooler().await;
                    let stores = crate::Pooled(crate::Postgres::at(pooler.url()));
                    crate::check(stringify!($theme), stringify!($behaviour), stores).await;
                }
            )* })*
        }
        mod in_memory {
            $(mod $theme { $(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $behaviour() {
                    crate::check(stringify!($theme), stringify!($behaviour), crate::InMemory).await;
                }
            )* })*
        }
    };
}

annals_eventstore::__conformance_behaviours!(tests);

/// Stores that wait for a busy machine.
struct Patient(Postgres);

#[async_trait::async_trait]
impl Stores for Patient {
    async fn open(&self, options: Options) -> Result<EventStore, Error> {
        self.0.open(support::patient(options)).await
    }
}

/// The same behind a pooler in transaction mode.
struct Pooled(Postgres);

#[async_trait::async_trait]
impl Stores for Pooled {
    async fn open(&self, options: Options) -> Result<EventStore, Error> {
        self.0.open(support::patient(options).transaction_pooler()).await
    }
}

async fn check(theme: &str, name: &str, stores: impl Stores) {
    let suite = conformance::suite().only(|it| it.theme == theme && it.name == name);
    let [behaviour] = suite.behaviours() else { panic!("{theme}::{name} is in the suite once") };
    if let Err(failure) = behaviour.check(Arc::new(stores), PATIENCE).await {
        panic!("{behaviour}: {failure}");
    }
}
