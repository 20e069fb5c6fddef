//! What the tests of sagas share.

#[allow(dead_code, reason = "these tests use a part of it")]
#[path = "../../../eventstore/tests/support/database.rs"]
pub(crate) mod database;
#[allow(dead_code, reason = "these tests use a part of it")]
#[path = "../../../eventstore/tests/support/waiting.rs"]
pub(crate) mod waiting;

use std::{sync::Arc, time::Duration};

use annals_eventstore::{EventStore, postgres::LeaseOptions};
use annals_projections::{
    ProjectionError, Start, Worker,
    saga::{Progress, SagaEvent, SagaStatus, control},
};
use tokio::task::JoinHandle;
use tokio_postgres::Client;
use tokio_util::sync::CancellationToken;

pub(crate) use self::waiting::{eventually, in_time};
use self::{booking::Services, database::TestDatabase};
pub(crate) use crate::booking;
use crate::booking::{Booking, BookingEvent};

/// A database with a store and the services that sagas call.
pub(crate) struct Scene {
    pub(crate) database: TestDatabase,
    pub(crate) store: EventStore,
    pub(crate) client: Arc<Client>,
}

impl Scene {
    pub(crate) async fn new() -> Self {
        let database = TestDatabase::create().await;
        let (store, client) = (database.store().await, Arc::new(database.client().await));
        client.batch_execute(booking::TABLES).await.unwrap();
        Self { database, store, client }
    }

    pub(crate) fn services(&self) -> Services {
        Services::new(&self.store, &self.client)
    }

    pub(crate) async fn status(&self, key: &str) -> Option<SagaStatus> {
        let shown = control::show(&self.store, "booking", key).await.unwrap();
        shown.map(|(summary, _)| summary.status)
    }

    pub(crate) async fn reaches(&self, key: &str, status: SagaStatus) {
        eventually(&format!("{key} is {status:?}"), || async {
            self.status(key).await == Some(status)
        })
        .await;
    }

    /// How the saga went, from its stream.
    pub(crate) async fn progress(&self, key: &str) -> Vec<Progress> {
        let shown = control::show(&self.store, "booking", key).await.unwrap();
        let events = shown.map(|(_, events)| events).unwrap_or_default();
        let decoded = events
            .into_iter()
            .flat_map(|event| event.decode::<SagaEvent<BookingEvent>>().unwrap().into_iter());
        decoded
            .filter_map(|event| match event.event {
                SagaEvent::Progress(progress) => Some(progress),
                SagaEvent::Own(_) => None,
            })
            .collect()
    }

    /// How many rows a query counts.
    pub(crate) async fn count(&self, sql: &str) -> i64 {
        database::value(&self.client, sql).await
    }
}

pub(crate) fn lease(milliseconds: u64) -> LeaseOptions {
    LeaseOptions::new(Duration::from_millis(milliseconds))
}

/// A worker on bookings from the beginning, as the tests start it: it polls often.
pub(crate) fn worker(store: &EventStore, services: Services) -> Worker {
    Worker::new(store)
        .saga_from::<Booking>(Start::Beginning, services)
        .poll_interval(Duration::from_millis(20))
        .lease(lease(2000))
        .stop_within(Duration::from_millis(200))
}

/// A worker in a task of its own.
pub(crate) struct Running {
    stop: CancellationToken,
    task: JoinHandle<Result<(), ProjectionError>>,
}

impl Running {
    pub(crate) fn start(worker: Worker) -> Self {
        let stop = CancellationToken::new();
        let task = tokio::spawn(worker.run_until(stop.clone()));
        Self { stop, task }
    }

    /// Tells the worker to stop, and waits until it has.
    pub(crate) async fn stop(self) {
        self.stop.cancel();
        in_time(self.task).await.unwrap().unwrap();
    }

    /// Drops the worker wherever it is: it gives nothing back.
    pub(crate) async fn abort(self) {
        self.task.abort();
        let ended = self.task.await;
        assert!(ended.is_err_and(|error| error.is_cancelled()), "the worker had ended before");
    }
}
