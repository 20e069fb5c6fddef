//! What the tests of the read side share.

pub(crate) mod account;
#[allow(dead_code, reason = "these tests use a part of it")]
pub(crate) mod chaos;
#[allow(dead_code, reason = "these tests use a part of it")]
#[path = "../../../../eventstore/tests/support/database.rs"]
pub(crate) mod database;
pub(crate) mod ledger;
pub(crate) mod load;
pub(crate) mod oracle;
#[path = "../../../../eventstore/tests/support/pooler.rs"]
pub(crate) mod pooler;
#[allow(dead_code, reason = "these tests use a part of it")]
#[path = "../../../../eventstore/tests/support/server.rs"]
pub(crate) mod server;
#[allow(dead_code, reason = "these tests use a part of it")]
#[path = "../../../../eventstore/tests/support/waiting.rs"]
pub(crate) mod waiting;

use std::time::Duration;

use annals_eventstore::{EventStore, postgres::LeaseOptions};
use annals_projections::{OnFailure, ProjectionError, QueryReadModels, ReadModel, Worker};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

pub(crate) use self::waiting::{PATIENCE, eventually, in_time, text};

pub(crate) fn lease(milliseconds: u64) -> LeaseOptions {
    LeaseOptions::new(Duration::from_millis(milliseconds))
}

/// A worker on one read model, as the tests start it: it polls often.
pub(crate) fn worker<R: ReadModel>(store: &EventStore) -> Worker {
    Worker::new(store).projection::<R>().poll_interval(Duration::from_millis(20))
}

/// A worker that ends at the first event that fails.
pub(crate) fn stopping<R: ReadModel>(store: &EventStore) -> Worker {
    worker::<R>(store).on_failure(OnFailure::Stop)
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

    /// Waits until a read model has everything that the log has now.
    pub(crate) async fn caught_up<R: ReadModel>(&mut self, store: &EventStore) {
        let end = store.safe_position().await.unwrap();
        tokio::select! {
            ended = &mut self.task => panic!("the worker ended: {ended:?}"),
            reached = store.query::<R>().wait_for(end, PATIENCE / 2) => reached.unwrap(),
        }
    }

    /// Tells the worker to stop, and waits until it has.
    pub(crate) async fn stop(self) {
        self.stop.cancel();
        in_time(self.task).await.unwrap().unwrap();
    }

    /// The error that the worker ends with by itself.
    pub(crate) async fn failure(self) -> ProjectionError {
        in_time(self.task).await.unwrap().expect_err("the worker fails")
    }

    /// Drops the worker wherever it is: it gives nothing back.
    pub(crate) async fn abort(self) {
        self.task.abort();
        let ended = self.task.await;
        assert!(ended.is_err_and(|error| error.is_cancelled()), "the worker had ended before");
    }

    pub(crate) fn is_running(&self) -> bool {
        !self.task.is_finished()
    }
}

/// Runs a worker until its read model has everything that the log has now, and stops it.
pub(crate) async fn catch_up<R: ReadModel>(store: &EventStore) {
    let mut running = Running::start(worker::<R>(store));
    running.caught_up::<R>(store).await;
    running.stop().await;
}
