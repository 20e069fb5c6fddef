//! A subscription as its reader sees it, and what it shares with the thread that reads.

use std::{
    collections::VecDeque,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread::Thread,
    time::Duration,
};

use annals_eventstore::{Position, Recorded};
use chrono::{DateTime, Utc};
use tokio::sync::{Notify, watch};

use super::{
    error::{FeedError, Undecodable},
    merge::Merge,
    offsets::{Offsets, Start},
    page::Page,
    reader,
    source::{Subscribe, spawn},
    status::{FeedState, FeedStatus, Reporter},
    topics::Place,
};

/// The events of some categories, page by page, in the order of the log they were published from.
///
/// A thread reads all partitions and the publisher's progress, and merges them: pages are as exact as
/// those that are read from the store. Dropping the subscription ends the thread.
#[derive(Debug)]
pub struct Subscription {
    shared: Arc<Shared>,
    thread: Option<Thread>,
    page_events: usize,
    page_bytes: usize,
}

impl Subscription {
    pub(super) fn start(what: Subscribe, start: Start) -> Self {
        let (page_events, page_bytes) = (what.page_events, what.page_bytes);
        let shared = Arc::new(Shared::new(&what, &start));
        let reading = shared.clone();
        let thread = match spawn("annals-kafka-feed", move || reader::run(what, start, &reading)) {
            Ok(thread) => Some(thread.thread().clone()),
            Err(error) => {
                shared.end(error);
                None
            }
        };
        Self { shared, thread, page_events, page_bytes }
    }

    /// The next page. It waits until there is one: new events, or word that there are none up to a later
    /// position.
    ///
    /// Cancellation safe: what was not returned is returned by the next call.
    ///
    /// # Errors
    /// After [`FeedError::Undecodable`], the next call goes on behind that record, which is neither in a
    /// page nor skipped by [`Page::offsets`] of earlier ones. Any other error has ended the subscription,
    /// and is returned again. A broker that does not answer is no error.
    pub async fn next(&mut self) -> Result<Page, FeedError> {
        self.next_up_to(self.page_events).await
    }

    /// The same, with another limit to the number of events.
    ///
    /// # Errors
    /// As [`next`](Self::next).
    pub async fn next_up_to(&mut self, events: usize) -> Result<Page, FeedError> {
        loop {
            if let Some(next) = self.shared.take(events, self.page_bytes) {
                if let Some(thread) = &self.thread {
                    thread.unpark();
                }
                return next;
            }
            self.shared.ready.notified().await;
        }
    }

    /// How far it has come and what it is doing, now and whenever that changes.
    pub fn status(&self) -> watch::Receiver<FeedStatus> {
        self.shared.reporter.subscribe()
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        self.shared.abandoned.store(true, Ordering::Release);
        if let Some(thread) = &self.thread {
            thread.unpark();
        }
    }
}

/// What the reader and its thread share.
#[derive(Debug)]
pub(super) struct Shared {
    inner: Mutex<Inner>,
    /// Something may be there to be taken.
    ready: Notify,
    abandoned: AtomicBool,
    pub(super) reporter: Reporter,
}

#[derive(Debug)]
pub(super) struct Inner {
    pub(super) merge: Merge<Recorded>,
    /// The partition of each lane of the merge.
    pub(super) places: Arc<[Place]>,
    pub(super) undecodable: VecDeque<Undecodable>,
    ended: Option<FeedError>,
    /// When the last event was recorded that was taken.
    recorded_at: Option<DateTime<Utc>>,
}

impl Shared {
    fn new(what: &Subscribe, start: &Start) -> Self {
        let position = match start {
            Start::At(resume) => resume.position,
            Start::Earliest | Start::Latest => Position::START,
        };
        let inner = Inner {
            merge: Merge::after(position),
            places: Arc::new([]),
            undecodable: VecDeque::new(),
            ended: None,
            recorded_at: None,
        };
        Self {
            inner: Mutex::new(inner),
            ready: Notify::new(),
            abandoned: AtomicBool::new(false),
            reporter: Reporter::new(what.label.clone(), position),
        }
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, Inner> {
        // It is whole after each call of the merge, wherever a panic happens.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn is_abandoned(&self) -> bool {
        self.abandoned.load(Ordering::Acquire)
    }

    /// Ends the subscription.
    pub(super) fn end(&self, error: FeedError) {
        self.lock().ended.get_or_insert(error);
        self.reporter.state(FeedState::Ended);
        self.ready.notify_one();
    }

    /// Wakes the reader if there is something for it, and tells how things stand.
    pub(super) fn tell(&self) {
        let inner = self.lock();
        if inner.is_ready() {
            self.ready.notify_one();
        }
        // Before another one has others to tell.
        self.reporter.figures(inner.figures());
    }

    fn take(&self, events: usize, bytes: usize) -> Option<Result<Page, FeedError>> {
        let mut inner = self.lock();
        if let Some(undecodable) = inner.undecodable.pop_front() {
            self.reporter.undecodable();
            return Some(Err(FeedError::Undecodable(Box::new(undecodable))));
        }
        let Some(taken) = inner.merge.take(events, bytes) else {
            return inner.ended.clone().map(Err);
        };
        let page = Page::new(taken, inner.offsets(), inner.places.clone());
        if let Some(last) = page.events.last() {
            inner.recorded_at = Some(last.recorded_at);
        }
        self.reporter.figures(inner.figures());
        drop(inner);
        self.reporter.taken(page.events.len());
        Some(Ok(page))
    }
}

impl Inner {
    /// Whether there is something to be taken.
    pub(super) fn is_ready(&self) -> bool {
        !self.undecodable.is_empty() || self.merge.complete() > self.merge.end()
    }

    fn offsets(&self) -> Offsets {
        let mut offsets = Offsets::new();
        for (lane, Place { topic, partition }) in self.places.iter().enumerate() {
            offsets.set(topic, *partition, self.merge.resume(lane));
        }
        offsets
    }

    fn figures(&self) -> FeedStatus {
        let lag_records = self.merge.lag();
        let (waiting_events, waiting_bytes) = self.merge.waiting();
        let age = self.recorded_at.filter(|_| lag_records > 0);
        let age = age.and_then(|recorded| (Utc::now() - recorded).to_std().ok());
        FeedStatus {
            state: FeedState::Reading,
            position: self.merge.end(),
            published: self.merge.known(),
            lag_records,
            // To the tenth of a second, so that it does not change all the time.
            lag: age.map_or(Duration::ZERO, |age| {
                Duration::from_millis(
                    u64::try_from(age.as_millis() / 100 * 100).unwrap_or(u64::MAX),
                )
            }),
            waiting_events,
            waiting_bytes,
        }
    }
}
