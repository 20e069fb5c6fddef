//! A store that fails now and then, and keeps all that it promises.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use chrono::{DateTime, Utc};

use super::{Fault, Faults};
use crate::{
    append::ExpectedVersion,
    backend::{Backend, KnownKey, Load, NewSnapshot, Outcome, Page, Part, Request, Session},
    error::Error,
    event::Recorded,
    ids::{Position, StreamId, Version},
    life::{StreamInfo, StreamState},
    postgres::{Client, SqlProjection},
    store::EventStore,
};

/// What a failure on purpose says of itself: it is the source of the error.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a fault was injected at {point:?}")]
pub struct Injected {
    point: &'static str,
}

impl Injected {
    /// At a fail point, or at what was being done.
    pub const fn at(point: &'static str) -> Self {
        Self { point }
    }

    /// The error of an append whose answer is lost.
    pub fn answer_lost(self) -> Error {
        Error::Indeterminate { source: Box::new(self) }
    }
}

/// A failure that passes, of something that was not done.
impl From<Injected> for Error {
    fn from(injected: Injected) -> Self {
        Self::Database { action: "go on", source: Box::new(injected), retryable: true }
    }
}

impl Faults {
    /// The same store, behind these faults: what it is asked for fails before it is done, loses its answer, meets conflicts,
    /// and takes longer. It keeps its promises all the same, so whoever handles its errors as they are documented comes
    /// out exact.
    ///
    /// Appends, commands and units of work are exposed to all faults but [`Repetition`](Fault::Repetition); loading and
    /// reading to [`Failure`](Fault::Failure) and [`Delay`](Fault::Delay). SQL of a program's own, and what workers write
    /// with it, takes a [`Link`](super::Link) to disturb.
    #[must_use]
    pub fn store(&self, store: &EventStore) -> EventStore {
        store.behind(self.clone())
    }

    pub(crate) fn over(&self, backend: Arc<dyn Backend>) -> Arc<dyn Backend> {
        Arc::new(Disturbed { backend, faults: self.clone() })
    }

    /// The conflict that a request is told of, if it is.
    fn conflict(&self, request: &Request, which: &str) -> Option<Outcome> {
        let refusable = |(stream, (_, expected)): (usize, &(StreamId, ExpectedVersion))| {
            let actual = match expected {
                ExpectedVersion::Exact(version) => *version,
                ExpectedVersion::NoStream => Version::NONE,
                // No other writer could make it fail.
                _ => return None,
            };
            Some(Outcome::Conflict { stream, actual })
        };
        let outcome = request.streams.iter().enumerate().find_map(refusable)?;
        self.happens(Fault::Conflict, APPEND, which).then_some(outcome)
    }

    /// The answer to what is recorded, unless it is lost.
    fn answer(&self, outcome: Outcome, which: &str) -> Result<Outcome, Error> {
        let is_recorded = matches!(outcome, Outcome::Recorded { .. });
        if is_recorded && self.happens(Fault::LostAnswer, APPEND, which) {
            return Err(Injected::at(APPEND).answer_lost());
        }
        Ok(outcome)
    }
}

const APPEND: &str = "append";
const LOAD: &str = "load";
const READ: &str = "read";
const BEGIN: &str = "begin";

/// What a request is told apart by: its streams.
fn name(request: &Request) -> String {
    request.streams.iter().map(|(stream, _)| format!("{stream}\0")).collect()
}

struct Disturbed {
    backend: Arc<dyn Backend>,
    faults: Faults,
}

impl Disturbed {
    /// Before something is read.
    async fn disturb(&self, what: &'static str, which: &str) -> Result<(), Error> {
        self.faults.pause(what, which).await;
        match self.faults.happens(Fault::Failure, what, which) {
            true => Err(Injected::at(what).into()),
            false => Ok(()),
        }
    }
}

#[async_trait]
impl Backend for Disturbed {
    async fn append(&self, request: Request) -> Result<Outcome, Error> {
        let which = name(&request);
        self.faults.pause(APPEND, &which).await;
        self.faults.admit(APPEND, &which)?;
        if let Some(conflict) = self.faults.conflict(&request, &which) {
            return Ok(conflict);
        }
        self.faults.answer(self.backend.append(request).await?, &which)
    }

    async fn load(&self, loads: Vec<Load>) -> Result<Vec<Part>, Error> {
        let which: String = loads.iter().map(|load| format!("{}\0", load.stream)).collect();
        self.disturb(LOAD, &which).await?;
        self.backend.load(loads).await
    }

    async fn save_snapshot(&self, snapshot: NewSnapshot) -> Result<(), Error> {
        self.backend.save_snapshot(snapshot).await
    }

    async fn begin(&self) -> Result<Box<dyn Session>, Error> {
        self.disturb(BEGIN, "").await?;
        let session = self.backend.begin().await?;
        Ok(Box::new(DisturbedSession { session, faults: self.faults.clone() }))
    }

    async fn page(&self, page: Page<'_>) -> Result<Vec<Recorded>, Error> {
        self.disturb(READ, "").await?;
        self.backend.page(page).await
    }

    async fn stream_info(&self, stream: &StreamId) -> Result<Option<StreamInfo>, Error> {
        self.disturb(LOAD, &stream.to_string()).await?;
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
        self.disturb(LOAD, &keys.join("\0")).await?;
        self.backend.known_keys(keys).await
    }

    async fn safe_position(&self) -> Result<Position, Error> {
        self.backend.safe_position().await
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

    async fn close(&self, limit: Option<Duration>) -> usize {
        self.backend.close(limit).await
    }
}

struct DisturbedSession {
    session: Box<dyn Session>,
    faults: Faults,
}

#[async_trait]
impl Session for DisturbedSession {
    async fn load(&self, loads: Vec<Load>) -> Result<Vec<Part>, Error> {
        self.session.load(loads).await
    }

    async fn known_keys(&self, keys: &[String]) -> Result<Vec<KnownKey>, Error> {
        self.session.known_keys(keys).await
    }

    fn sql(&self) -> Result<&Client, Error> {
        self.session.sql()
    }

    async fn commit(
        self: Box<Self>,
        request: Request,
        inline: &[Arc<dyn SqlProjection>],
    ) -> Result<Outcome, Error> {
        let Self { session, faults } = *self;
        let which = name(&request);
        faults.pause(APPEND, &which).await;
        if let Err(error) = faults.admit(APPEND, &which) {
            session.rollback().await?;
            return Err(error);
        }
        if let Some(conflict) = faults.conflict(&request, &which) {
            session.rollback().await?;
            return Ok(conflict);
        }
        let outcome = session.commit(request, inline).await?;
        faults.answer(outcome, &which)
    }

    async fn rollback(self: Box<Self>) -> Result<(), Error> {
        self.session.rollback().await
    }
}
