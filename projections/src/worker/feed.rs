//! The feed: what all runners of a process read the log through.
//!
//! It listens and polls once for all of them, and keeps the latest events in memory: who is up to date gets
//! new events from there, read once. Who is behind reads the log.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use annals_eventstore::{EventStore, Position, Recorded, postgres::Listener};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tracing::warn;

use super::Projection;
use crate::{
    error::Error,
    page::{Page, Pages},
};

/// How many of the latest events are kept.
const KEPT: usize = 10_000;
/// How many are read at once.
const PAGE: usize = 2000;

pub(super) struct Feed {
    store: EventStore,
    poll_interval: Duration,
    /// All that any projection of the process is fed with.
    pages: Pages,
    latest: Mutex<Latest>,
    /// Up to where events are safe to read.
    safe: watch::Sender<Position>,
}

/// The latest events: all of the feed's categories after `after`, up to `to`.
struct Latest {
    after: Position,
    to: Position,
    events: VecDeque<Recorded>,
}

/// A part of the log: its events, and the position that it reaches.
pub(super) struct Part {
    pub(super) events: Vec<Recorded>,
    pub(super) to: Position,
    /// There was more when it was read.
    pub(super) more: bool,
}

impl Feed {
    pub(super) async fn new(
        store: &EventStore,
        poll_interval: Duration,
        projections: &[Arc<dyn Projection>],
    ) -> Result<Self, Error> {
        let mut categories: Vec<_> =
            projections.iter().flat_map(|projection| projection.categories()).cloned().collect();
        categories.sort_unstable();
        categories.dedup();
        let safe = store.safe_position().await.unwrap_or(Position::START);
        let latest = Latest { after: safe, to: safe, events: VecDeque::new() };
        Ok(Self {
            store: store.clone(),
            poll_interval,
            pages: Pages::of(store, &categories),
            latest: Mutex::new(latest),
            safe: watch::Sender::new(safe),
        })
    }

    /// Looks for new events until told to stop.
    pub(super) async fn run(&self, stop: &CancellationToken) {
        let mut listener: Option<Listener> = None;
        let mut failures = 0_u32;
        while !stop.is_cancelled() {
            let wait = match self.advance(&mut listener).await {
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
            tokio::select! {
                () = stop.cancelled() => {}
                () = async {
                    match listener.as_ref().filter(|_| failures == 0) {
                        Some(listener) => listener.wait(wait).await,
                        None => tokio::time::sleep(wait).await,
                    }
                } => {}
            }
        }
    }

    async fn advance(&self, listener: &mut Option<Listener>) -> Result<(), Error> {
        if listener.as_ref().is_none_or(Listener::is_closed) {
            *listener = Some(self.store.database()?.listen().await?);
        }
        // First the safe position, then, in statements of their own, what is below it.
        let safe = self.store.safe_position().await?;
        let mut after = self.latest().to;
        while after < safe {
            let Page { events, to } = self.pages.next(after, safe, PAGE).await?;
            self.latest().add(events, to);
            self.safe.send_replace(to);
            after = to;
        }
        Ok(())
    }

    fn latest(&self) -> std::sync::MutexGuard<'_, Latest> {
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
        if let Some(part) = self.latest().part(pages.categories(), after, limit) {
            return Ok(Some(part));
        }
        let Page { events, to } = pages.next(after, safe, limit).await?;
        Ok(Some(Part { more: to < safe, events, to }))
    }
}

impl Latest {
    fn add(&mut self, events: Vec<Recorded>, to: Position) {
        self.to = to;
        self.events.extend(events);
        while self.events.len() > KEPT {
            if let Some(first) = self.events.pop_front() {
                self.after = first.position;
            }
        }
    }

    fn part(&self, categories: &[String], after: Position, limit: usize) -> Option<Part> {
        if after < self.after {
            return None;
        }
        let first = self.events.partition_point(|event| event.position <= after);
        let of_them = |event: &&Recorded| {
            categories.iter().any(|category| category == event.stream.category())
        };
        let events = self.events.range(first..).filter(of_them).take(limit).cloned();
        let events: Vec<_> = events.collect();
        let to = reached(&events, limit, self.to);
        Some(Part { more: to < self.to, events, to })
    }
}

/// A page that is not full has seen all up to the end, also what it does not match.
fn reached(events: &[Recorded], limit: usize, end: Position) -> Position {
    match events.last() {
        Some(last) if events.len() == limit => last.position,
        _ => end,
    }
}
