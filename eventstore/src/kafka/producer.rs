//! The producer's thread, as the driver sees it.
//!
//! All that blocks happens there ([`worker`](super::worker)). The thread takes steps and reports
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
use tokio_util::sync::DropGuard;

use super::{
    circuit::Passage,
    options::Settings,
    progress_record::{LastEvent, ProgressRecord},
    start::Told,
    worker::Worker,
};
use crate::{error::Error, event::Recorded, ids::Position};

/// Why a producer ended.
#[derive(Debug)]
pub(super) enum Failure {
    /// A new producer may do better.
    Interrupted(Error),
    /// Nothing will change by trying again.
    Refused(Error),
    /// Another producer has the transactional id.
    Fenced,
    /// The circuit is open, for this reason.
    Open(String),
    /// Nobody wants the outcome any more.
    Abandoned,
}

/// What the thread is to do.
#[derive(Debug)]
pub(super) enum Job {
    /// Go on in the log.
    Deliver(Step),
    /// Wait until all is acknowledged, also what was not waited for.
    Finish,
}

/// A step in the log.
#[derive(Clone, Debug)]
pub(super) struct Step {
    /// What to publish; there may be nothing.
    pub(super) events: Arc<[Recorded]>,
    /// Every event up to here is in the topics then.
    pub(super) to: Position,
    /// The last event up to there.
    pub(super) event: Option<LastEvent>,
    /// What consumers know before.
    pub(super) told: Told,
}

/// News from the thread.
#[derive(Debug)]
pub(super) enum Report {
    /// The broker does not answer, for this reason.
    Unreachable(String),
    /// It answers again.
    Reachable,
    /// The thread takes jobs. The broker has this progress of the store.
    Ready(Option<ProgressRecord>),
    /// The thread is done with what it was given to do last: so many events of it are published.
    Done(usize),
    /// The thread has ended.
    Failed(Failure),
}

/// The other end of the thread. Dropping it makes the thread give up what it is at, and end.
#[derive(Debug)]
pub(super) struct Producer {
    jobs: mpsc::Sender<Job>,
    reports: UnboundedReceiver<Report>,
    abandoned: Arc<AtomicBool>,
}

impl Drop for Producer {
    fn drop(&mut self) {
        self.abandoned.store(true, Ordering::Relaxed);
    }
}

impl Producer {
    /// Starts the thread, for a log that has these categories now, and is published up to `checkpoint` at least by
    /// what the database says. Its first news are [`Report::Ready`], or a failure. It drops `ended` when it has
    /// nothing open at the broker any more, as far as it can.
    pub(super) fn start(
        settings: Arc<Settings>,
        categories: Vec<String>,
        transactional_id: Arc<str>,
        checkpoint: Position,
        passage: Passage,
        ended: DropGuard,
    ) -> Result<Self, Error> {
        let (jobs, received) = mpsc::channel();
        let (news, reports) = unbounded_channel();
        let abandoned = Arc::new(AtomicBool::new(false));
        let worker_abandoned = abandoned.clone();
        let work = move || {
            // Nobody may be there to hear how it ends.
            match Worker::new(
                settings,
                categories,
                transactional_id,
                checkpoint,
                passage,
                news.clone(),
                worker_abandoned,
            ) {
                Ok(mut worker) => {
                    let failure = worker.serve(&received);
                    drop(ended);
                    let _ = news.send(Report::Failed(failure));
                    // The client ends with the worker, and takes its time.
                }
                Err(failure) => drop(news.send(Report::Failed(failure))),
            }
        };
        thread::Builder::new()
            .name("annals-kafka".to_owned())
            .spawn(work)
            .map_err(|error| broker_error("start the publisher's thread", error))?;
        Ok(Self { jobs, reports, abandoned })
    }

    /// Hands over a job.
    pub(super) fn start_job(&self, job: Job) {
        // If the thread has ended, its last report says why.
        let _ = self.jobs.send(job);
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
