//! Group commit: everything that waits to be appended goes out as one statement and one commit.
//!
//! Batches form by themselves, without lingering: while one is on its way, the next one gathers.
//! Every append in a batch has its own outcome. A batch that fails as a whole, for a reason that is
//! some append's own, is sent again in halves, so that a bad append fails alone.
//!
//! ```text
//! callers ──▶ queue ──▶ gathering ──▶ writers ──▶ append_batch
//!             bounded   batches           │
//!                                         ▼ streams that others hold
//!                                     the waiting lane ──▶ append_batch
//! ```

mod announce;
mod arrays;
mod batch;
mod failure;
mod queue;
mod writer;

use std::{sync::Arc, time::Duration};

use deadpool_postgres::Pool;
use tokio::sync::{Mutex, mpsc, watch};
use tokio_util::task::TaskTracker;

pub(super) use self::{
    arrays::Json,
    failure::{CLOCK_WENT_BACK, Failure, KEY_TAKEN_MEANWHILE},
    writer::record_on,
};
use self::{
    batch::Gathering,
    queue::{Lane, Queue},
    writer::Writer,
};
use super::{Schema, channel, connect::Target, dialect::Dialect};
use crate::{
    backend::{Outcome, Request},
    error::Error,
    store::Options,
};

/// How much longer than the server may take to keep its own limit the store waits for an answer.
pub(super) const GRACE: Duration = Duration::from_secs(2);

/// The door to the tasks that append.
pub(super) struct Appender {
    queue: Arc<Queue>,
    tasks: TaskTracker,
    nudges: mpsc::WeakSender<()>,
    /// Changes when something was recorded here, for readers in the same process.
    recorded: watch::Sender<()>,
}

impl Appender {
    /// How many connections the tasks need.
    pub(super) fn connections(options: &Options) -> usize {
        // One for the waiting lane, and one for nudges.
        options.writers + 2
    }

    /// Starts the tasks. They end when the appender is closed or dropped, and what was queued is done.
    pub(super) fn start(
        target: &Target,
        dialect: &Arc<Dialect>,
        pool: Pool,
        schema: &Schema,
        options: &Options,
    ) -> Self {
        let (queue, receiver) = Queue::new(options);
        let queue = Arc::new(queue);
        let (lane, waiting) = Lane::new();
        let (nudge, nudged) = mpsc::channel(1);
        let recorded = watch::Sender::new(());
        let tasks = TaskTracker::new();
        let writer = Writer {
            target: target.clone(),
            dialect: dialect.clone(),
            pool: pool.clone(),
            statement: schema.sql(include_str!("../sql/append.sql")).into(),
            nudge,
            recorded: recorded.clone(),
            clock: options.clock.clone(),
            limit: options.append_timeout.saturating_add(GRACE),
            queue: queue.clone(),
        };
        let gathering =
            Arc::new(Mutex::new(Gathering::new(receiver, lane.clone(), queue.clone(), options)));
        for _ in 0..options.writers {
            let (writer, gathering, lane) = (writer.clone(), gathering.clone(), lane.clone());
            tasks.spawn(async move {
                loop {
                    let batch = gathering.lock().await.next().await;
                    let Some(batch) = batch else { break };
                    writer.send(batch, &lane).await;
                }
            });
        }
        drop(gathering);
        // Weak, so that the task that nudges ends with those that record.
        let nudges = writer.nudge.downgrade();
        tasks.spawn(lane.run(waiting, writer, options.lock_timeout));
        let (target, dialect, channel) = (target.clone(), dialect.clone(), channel(schema));
        let cut = queue.cut.clone();
        tasks.spawn(announce::announce(target, dialect, pool, channel, nudged, cut));
        Self { queue, tasks, nudges, recorded }
    }

    /// Tells readers that something was committed past the queue.
    pub(super) fn nudge(&self) {
        self.recorded.send_replace(());
        if let Some(nudges) = self.nudges.upgrade() {
            // If there is one to be sent already, it will do.
            let _ = nudges.try_send(());
        }
    }

    /// Tells of what is recorded by this process: sooner than a nudge, which takes the server's time.
    pub(super) fn recorded(&self) -> watch::Receiver<()> {
        self.recorded.subscribe()
    }

    /// Queues a request and waits for its outcome.
    ///
    /// Dropping the future does not take the request back: it may still be recorded.
    pub(super) async fn append(&self, request: Request) -> Result<Outcome, Error> {
        self.queue.append(request).await
    }

    /// Takes no more appends and waits until those accepted are done; those that are not by `limit`
    /// are given up. Returns how many those were.
    pub(super) async fn close(&self, limit: Option<Duration>) -> usize {
        self.queue.close();
        self.tasks.close();
        match limit {
            None => self.tasks.wait().await,
            Some(limit) => {
                if tokio::time::timeout(limit, self.tasks.wait()).await.is_err() {
                    self.queue.cut.cancel();
                    self.tasks.wait().await;
                }
            }
        }
        self.queue.cut_off()
    }
}

impl Drop for Appender {
    fn drop(&mut self) {
        self.queue.close();
    }
}
