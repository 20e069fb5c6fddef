//! The feed: what all runners of a process read the log through.
//!
//! It listens and polls once for all of them, and keeps the latest events in memory: who is up to date gets
//! new events from there, read once. Who is behind reads the log.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use annals_eventstore::{EventStore, Position};
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;
use tracing::warn;

use super::{
    Projection,
    latest::{Latest, Part},
};
use crate::{
    error::Error,
    page::{Page, Pages},
};

/// How many events are read at once at most.
const PAGE: usize = 2000;
/// Between two looks at the log, so that under load each finds more than one event. On two cores an event is seen
/// sooner with it than without, since looking takes the time of those who work.
const PAUSE: Duration = Duration::from_millis(1);
/// How long to wait before the next try to listen. Meanwhile, polling finds what there is.
const DEAF: Duration = Duration::from_secs(1);
/// A nudge comes before that, or the end of the connection.
const LONG: Duration = Duration::from_secs(3600);

pub(super) struct Feed {
    store: EventStore,
    poll_interval: Duration,
    /// All that any projection of the process is fed with.
    pages: Pages,
    /// `None` before the first look.
    latest: Mutex<Option<Latest>>,
    /// Up to where events are safe to read.
    safe: watch::Sender<Position>,
    nudged: Notify,
}

impl Feed {
    pub(super) fn new(
        store: &EventStore,
        poll_interval: Duration,
        projections: &[Arc<dyn Projection>],
    ) -> Self {
        let mut categories: Vec<_> =
            projections.iter().flat_map(|projection| projection.categories()).cloned().collect();
        categories.sort_unstable();
        categories.dedup();
        Self {
            store: store.clone(),
            poll_interval,
            pages: Pages::of(store, &categories),
            latest: Mutex::new(None),
            safe: watch::Sender::new(Position::START),
            nudged: Notify::new(),
        }
    }

    /// Looks for new events until told to stop.
    pub(super) async fn run(&self, stop: &CancellationToken) {
        tokio::select! {
            () = self.look(stop) => {}
            () = self.listen() => {}
        }
    }

    /// Looks after each nudge, and now and then.
    async fn look(&self, stop: &CancellationToken) {
        let mut failures = 0_u32;
        while !stop.is_cancelled() {
            let wait = match self.advance().await {
                Ok(()) => {
                    failures = 0;
                    self.poll_interval
                }
                Err(error) => {
                    // Who works says so too; here it is said once.
                    if failures == 0 {
                        warn!(%error, "no look at the log");
                    }
                    failures += 1;
                    Duration::from_millis(100 * u64::from(failures.min(10)))
                }
            };
            tokio::time::sleep(PAUSE).await;
            tokio::select! {
                () = stop.cancelled() => {}
                () = self.nudged.notified(), if failures == 0 => {}
                () = tokio::time::sleep(wait) => {}
            }
        }
    }

    /// Passes nudges on, for ever. Without a connection to listen on there are none, and nothing else is
    /// held up.
    async fn listen(&self) {
        let mut is_deaf = false;
        loop {
            let listener = match self.store.database() {
                Ok(database) => database.listen().await,
                Err(error) => Err(error),
            };
            match listener {
                Ok(listener) => {
                    is_deaf = false;
                    while !listener.is_closed() {
                        // Once at first, for what was appended before.
                        self.nudged.notify_one();
                        listener.wait(LONG).await;
                    }
                }
                Err(error) if !is_deaf => {
                    warn!(%error, "no nudges after appends: the log is polled");
                    is_deaf = true;
                    tokio::time::sleep(DEAF).await;
                }
                Err(_) => tokio::time::sleep(DEAF).await,
            }
        }
    }

    async fn advance(&self) -> Result<(), Error> {
        let known = self.latest().as_ref().map(Latest::to);
        let Some(mut after) = known else {
            // Who comes later reads what there is by then from the log.
            let safe = self.store.safe_position().await?;
            *self.latest() = Some(Latest::begin(safe));
            self.safe.send_replace(safe);
            return Ok(());
        };
        let (safe, page) = self.pages.look(after, PAGE).await?;
        let mut part = of_page(page, safe);
        while after < part.to {
            after = part.to;
            if let Some(latest) = &mut *self.latest() {
                latest.add(part);
            }
            self.safe.send_replace(after);
            if after >= safe {
                break;
            }
            part = self::part(&self.pages, after, safe, PAGE).await?;
        }
        Ok(())
    }

    fn latest(&self) -> std::sync::MutexGuard<'_, Option<Latest>> {
        self.latest.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until there is something after a position. Cancellation safe.
    pub(super) async fn is_past(&self, after: Position) {
        // The sender lives as long as this.
        let _ = self.safe.subscribe().wait_for(|safe| *safe > after).await;
    }

    /// The next events after a position, of the categories of the pages; `None` if there is nothing yet.
    pub(super) async fn next(
        &self,
        pages: &Pages,
        after: Position,
        limit: usize,
    ) -> Result<Option<Part>, Error> {
        let safe = *self.safe.borrow();
        if safe <= after {
            return Ok(None);
        }
        let categories = pages.categories();
        let latest =
            self.latest().as_ref().and_then(|latest| latest.part(categories, after, limit));
        match latest {
            Some(part) => Ok(Some(part)),
            None => part(pages, after, safe, limit).await.map(Some),
        }
    }
}

async fn part(pages: &Pages, after: Position, safe: Position, limit: usize) -> Result<Part, Error> {
    Ok(of_page(pages.next(after, safe, limit).await?, safe))
}

fn of_page(Page { events, to }: Page, safe: Position) -> Part {
    Part { more: to < safe, events, to, mark: None }
}
