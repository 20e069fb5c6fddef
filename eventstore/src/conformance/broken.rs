//! Stores that break their promises now and then: the suite must go red on each, or it proves
//! nothing about those on which it is green.
//!
//! ```
//! use annals_eventstore::conformance::{self, InMemory, broken::{Broken, Fault}};
//!
//! # #[tokio::main]
//! # async fn main() {
//! let appends = conformance::suite().only(|behaviour| behaviour.theme == "append");
//! let report = appends.run(Broken::new(InMemory, Fault::LosesAppends)).await;
//! assert!(!report.is_green());
//! # }
//! ```

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use chrono::{DateTime, TimeDelta, Utc};

use super::stores::Stores;
use crate::{
    append::ExpectedVersion,
    backend::{Backend, KnownKey, Load, NewSnapshot, Outcome, Page, Part, Request, Session},
    error::Error,
    event::Recorded,
    ids::{Position, StreamId, Version},
    life::{StreamInfo, StreamState},
    store::{EventStore, Options},
};

/// What a broken store does wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Fault {
    /// Acknowledges every third append without recording it.
    LosesAppends,
    /// Leaves an event out of every third page or stream that is read.
    LosesReads,
    /// Records every third append twice.
    RepeatsAppends,
    /// Yields an event twice in every third page or stream that is read.
    RepeatsReads,
    /// Records the events of every third append in reverse.
    ReordersAppends,
    /// Swaps two neighbours in every third page or stream that is read.
    ReordersReads,
    /// Records only the first stream of an append to several.
    TearsAppends,
    /// Takes every append, whatever version it expects.
    IgnoresVersions,
    /// Records every append anew, whatever its idempotency key.
    ForgetsKeys,
    /// Tells of every fifth event that it was recorded an hour before.
    TurnsTimeBack,
    /// Yields the events of all categories to a reader of some.
    IgnoresCategories,
    /// Says that it is safe to read up to a position that is still to be drawn.
    ReadsTooFar,
}

impl Fault {
    /// All faults.
    pub const ALL: [Self; 12] = [
        Self::LosesAppends,
        Self::LosesReads,
        Self::RepeatsAppends,
        Self::RepeatsReads,
        Self::ReordersAppends,
        Self::ReordersReads,
        Self::TearsAppends,
        Self::IgnoresVersions,
        Self::ForgetsKeys,
        Self::TurnsTimeBack,
        Self::IgnoresCategories,
        Self::ReadsTooFar,
    ];
}

/// Stores that are good but for one fault.
#[derive(Clone, Copy, Debug)]
pub struct Broken<S> {
    stores: S,
    fault: Fault,
}

impl<S: Stores> Broken<S> {
    /// Puts a fault into stores.
    pub fn new(stores: S, fault: Fault) -> Self {
        Self { stores, fault }
    }
}

#[async_trait]
impl<S: Stores> Stores for Broken<S> {
    async fn open(&self, options: Options) -> Result<EventStore, Error> {
        let store = self.stores.open(options).await?;
        let fault = self.fault;
        Ok(store.with_backend(|backend| {
            Arc::new(Faulty {
                backend,
                fault,
                appends: AtomicUsize::new(0),
                reads: AtomicUsize::new(0),
            })
        }))
    }

    async fn finish(&self) {
        self.stores.finish().await;
    }
}

struct Faulty {
    backend: Arc<dyn Backend>,
    fault: Fault,
    appends: AtomicUsize,
    reads: AtomicUsize,
}

/// True at every third call.
fn third(calls: &AtomicUsize) -> bool {
    calls.fetch_add(1, Ordering::Relaxed) % 3 == 2
}

impl Faulty {
    async fn version(&self, stream: &StreamId) -> Result<Version, Error> {
        let info = self.backend.stream_info(stream).await?;
        Ok(info.map_or(Version::NONE, |info| info.version))
    }

    /// Answers as if the request were recorded, if it is one that would be.
    async fn lose(&self, request: Request) -> Result<Outcome, Error> {
        let mut before = Vec::new();
        for (stream, expected) in &request.streams {
            let version = self.version(stream).await?;
            if !expected.accepts(version) {
                return self.backend.append(request).await;
            }
            before.push(version);
        }
        Ok(Outcome::Recorded { before, first: self.backend.last_position().await?.plus(1) })
    }

    async fn repeat(&self, mut request: Request) -> Result<Outcome, Error> {
        let outcome = self.backend.append(request.clone()).await?;
        if matches!(outcome, Outcome::Recorded { .. }) {
            request.keys.clear();
            expect_nothing(&mut request);
            self.backend.append(request).await?;
        }
        Ok(outcome)
    }

    async fn tear(&self, mut request: Request) -> Result<Outcome, Error> {
        let mut left_out = Vec::new();
        for (stream, _) in request.streams.drain(1..) {
            left_out.push(self.version(&stream).await?);
        }
        request.events.retain(|(stream, _)| *stream == 0);
        request.keys.retain(|key| key.stream == 0);
        let mut outcome = self.backend.append(request).await?;
        if let Outcome::Recorded { before, .. } = &mut outcome {
            before.extend(left_out);
        }
        Ok(outcome)
    }

    /// What a reader gets instead of these events.
    fn spoil<T>(&self, events: &mut Vec<T>, event: fn(&mut T) -> &mut Recorded)
    where
        T: Clone,
    {
        if self.fault == Fault::TurnsTimeBack {
            for event in events.iter_mut().map(event) {
                if event.position.get() % 5 == 0 {
                    event.recorded_at -= TimeDelta::hours(1);
                }
            }
            return;
        }
        self.spoil_order(events);
    }

    fn spoil_order<T: Clone>(&self, events: &mut Vec<T>) {
        let spoils =
            matches!(self.fault, Fault::LosesReads | Fault::RepeatsReads | Fault::ReordersReads);
        let middle = events.len() / 2;
        if !spoils || events.is_empty() || !third(&self.reads) {
            return;
        }
        match self.fault {
            Fault::LosesReads => {
                events.remove(middle);
            }
            Fault::RepeatsReads => events.insert(middle, events[middle].clone()),
            _ => events.swap(middle, middle.saturating_sub(1)),
        }
    }
}

fn expect_nothing(request: &mut Request) {
    for (_, expected) in &mut request.streams {
        *expected = ExpectedVersion::Any;
    }
}

#[async_trait]
impl Backend for Faulty {
    async fn append(&self, mut request: Request) -> Result<Outcome, Error> {
        match self.fault {
            Fault::LosesAppends if third(&self.appends) => return self.lose(request).await,
            Fault::RepeatsAppends if third(&self.appends) => return self.repeat(request).await,
            Fault::ReordersAppends if third(&self.appends) => request.events.reverse(),
            Fault::TearsAppends if request.streams.len() > 1 => return self.tear(request).await,
            Fault::IgnoresVersions => expect_nothing(&mut request),
            Fault::ForgetsKeys => request.keys.clear(),
            _ => {}
        }
        self.backend.append(request).await
    }

    async fn load(&self, loads: Vec<Load>) -> Result<Vec<Part>, Error> {
        let mut parts = self.backend.load(loads).await?;
        parts.iter_mut().for_each(|part| self.spoil_order(&mut part.events));
        Ok(parts)
    }

    /// Units of work have none of the faults.
    async fn begin(&self) -> Result<Box<dyn Session>, Error> {
        self.backend.begin().await
    }

    async fn save_snapshot(&self, snapshot: NewSnapshot) -> Result<(), Error> {
        self.backend.save_snapshot(snapshot).await
    }

    async fn page(&self, mut page: Page<'_>) -> Result<Vec<Recorded>, Error> {
        if self.fault == Fault::IgnoresCategories {
            page.categories = None;
        }
        let mut events = self.backend.page(page).await?;
        self.spoil(&mut events, |event| event);
        Ok(events)
    }

    async fn stream_info(&self, stream: &StreamId) -> Result<Option<StreamInfo>, Error> {
        self.backend.stream_info(stream).await
    }

    async fn change_state(
        &self,
        stream: &StreamId,
        expected: ExpectedVersion,
        state: StreamState,
    ) -> Result<Version, Error> {
        self.backend.change_state(stream, expected, state).await
    }

    async fn remove_keys(&self, older_than: Duration) -> Result<u64, Error> {
        self.backend.remove_keys(older_than).await
    }

    async fn known_keys(&self, keys: &[String]) -> Result<Vec<KnownKey>, Error> {
        match self.fault {
            Fault::ForgetsKeys => Ok(Vec::new()),
            _ => self.backend.known_keys(keys).await,
        }
    }

    async fn close(&self, limit: Option<Duration>) -> usize {
        self.backend.close(limit).await
    }

    async fn safe_position(&self) -> Result<Position, Error> {
        let safe = self.backend.safe_position().await?;
        Ok(if self.fault == Fault::ReadsTooFar { safe.plus(1) } else { safe })
    }

    async fn last_position(&self) -> Result<Position, Error> {
        self.backend.last_position().await
    }

    async fn position_at(
        &self,
        time: DateTime<Utc>,
        clock: Option<DateTime<Utc>>,
    ) -> Result<Position, Error> {
        self.backend.position_at(time, clock).await
    }
}
