//! The producer's thread, as the driver sees it.
//!
//! All that blocks happens there ([`worker`](super::worker)). The thread takes batches and reports
//! what becomes of them. It lasts for as long as all goes well; after a failure it ends, and whoever
//! starts over starts another one.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
        mpsc,
    },
    thread,
};

use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

use super::{options::Settings, worker::Worker};
use crate::{error::Error, event::Recorded};

/// Why a producer ended.
#[derive(Debug)]
pub(super) enum Failure {
    /// A new producer may do better.
    Interrupted(Error),
    /// Nothing will change by trying again.
    Refused(Error),
    /// Nobody wants the outcome any more.
    Abandoned,
}

/// News from the thread.
#[derive(Debug)]
pub(super) enum Report {
    /// The broker does not answer, for this reason.
    Unreachable(String),
    /// It answers again.
    Reachable,
    /// The thread is done with what it was given to do last: so many events of it are published.
    Done(usize),
    /// The thread has ended.
    Failed(Failure),
}

/// The other end of the thread. Dropping it makes the thread drop all messages and end.
#[derive(Debug)]
pub(super) struct Producer {
    batches: mpsc::Sender<Arc<[Recorded]>>,
    reports: UnboundedReceiver<Report>,
    abandoned: Arc<AtomicBool>,
}

impl Drop for Producer {
    fn drop(&mut self) {
        self.abandoned.store(true, Ordering::Relaxed);
    }
}

impl Producer {
    /// Starts the thread, for a log that has these categories now. Its first [`Report::Done`] says that
    /// it has reached the broker and that the topics are there.
    pub(super) fn start(settings: Arc<Settings>, categories: Vec<String>) -> Result<Self, Error> {
        let (batches, jobs) = mpsc::channel();
        let (news, reports) = unbounded_channel();
        let abandoned = Arc::new(AtomicBool::new(false));
        let worker_abandoned = abandoned.clone();
        let work = move || {
            let worker = Worker::new(settings, categories, news.clone(), worker_abandoned);
            if let Err(failure) = worker.and_then(|worker| worker.serve(&jobs)) {
                // Nobody may be there to hear it.
                let _ = news.send(Report::Failed(failure));
            }
        };
        thread::Builder::new()
            .name("annals-kafka".to_owned())
            .spawn(work)
            .map_err(|error| broker_error("start the publisher's thread", error))?;
        Ok(Self { batches, reports, abandoned })
    }

    /// Hands over a batch.
    pub(super) fn send(&self, batch: Arc<[Recorded]>) {
        // If the thread has ended, its last report says why.
        let _ = self.batches.send(batch);
    }

    /// The next news.
    pub(super) async fn report(&mut self) -> Report {
        self.reports.recv().await.unwrap_or_else(|| {
            let action = "go on: the publisher's thread has ended".to_owned();
            Report::Failed(Failure::Interrupted(Error::Broker { action, source: "a panic".into() }))
        })
    }
}

/// What Kafka said while something was done.
pub(super) fn broker_error(
    action: impl Into<String>,
    source: impl std::error::Error + Send + Sync + 'static,
) -> Error {
    Error::Broker { action: action.into(), source: Box::new(source) }
}
