//! The store in memory: the same behaviour for unit tests, without a database.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use futures::{StreamExt, stream, stream::BoxStream};

use crate::{
    append::ExpectedVersion,
    backend::{Backend, KnownKey, Outcome, Page, Range, Request},
    clock::{Clock, to_micros},
    error::Error,
    event::Recorded,
    ids::{Position, StreamId, Version},
    life::{StreamInfo, StreamState},
    query::{Archived, Direction},
};

/// A log in memory. An append holds the lock from its checks to its end, so there is never one in
/// flight: every position is safe.
#[derive(Debug)]
pub(crate) struct Memory {
    log: Mutex<Log>,
    clock: Clock,
    /// How long idempotency keys are kept; for ever, if `None`.
    retention: Option<Duration>,
}

#[derive(Debug, Default)]
struct Log {
    /// The event at position `p` stands at index `p - 1`.
    events: Vec<Recorded>,
    /// The indexes of each stream's events.
    streams: HashMap<StreamId, Vec<usize>>,
    /// The streams that are not live.
    states: HashMap<StreamId, StreamState>,
    keys: HashMap<String, (Instant, KnownKey)>,
}

impl Memory {
    pub(crate) fn new(clock: Clock, retention: Option<Duration>) -> Self {
        Self { log: Mutex::default(), clock, retention }
    }

    fn log(&self) -> MutexGuard<'_, Log> {
        // The log is changed after all checks, so a panic elsewhere leaves it whole.
        let mut log = self.log.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(retention) = self.retention {
            log.remove_keys(retention);
        }
        log
    }
}

impl Log {
    fn version(&self, stream: &StreamId) -> Version {
        Version::NONE.plus(self.streams.get(stream).map_or(0, Vec::len))
    }

    fn state(&self, stream: &StreamId) -> StreamState {
        self.states.get(stream).copied().unwrap_or_default()
    }

    fn remove_keys(&mut self, older_than: Duration) -> u64 {
        let before = self.keys.len();
        self.keys.retain(|_, (recorded, _)| recorded.elapsed() <= older_than);
        (before - self.keys.len()) as u64
    }

    fn change_state(
        &mut self,
        stream: &StreamId,
        expected: ExpectedVersion,
        state: StreamState,
    ) -> Result<Version, Error> {
        let actual = self.version(stream);
        if actual == Version::NONE {
            let expected = ExpectedVersion::Exists;
            return Err(Error::Conflict { stream: stream.clone(), expected, actual });
        }
        if !expected.accepts(actual) {
            return Err(Error::Conflict { stream: stream.clone(), expected, actual });
        }
        match (self.state(stream), state) {
            (before, after) if before == after => {}
            (_, StreamState::Live) => drop(self.states.remove(stream)),
            (StreamState::Live, _) => drop(self.states.insert(stream.clone(), state)),
            (before, _) => return Err(before.refusal(stream.clone())),
        }
        Ok(actual)
    }

    fn last_time(&self) -> Option<DateTime<Utc>> {
        self.events.last().map(|event| event.recorded_at)
    }

    /// Whether a stream that is asked for by its name is read.
    fn readable(&self, stream: &StreamId, archived: Archived) -> Result<bool, Error> {
        match (self.state(stream), archived) {
            (StreamState::Live, _) | (StreamState::Archived, Archived::Included) => Ok(true),
            (StreamState::Deleted, _) => Ok(false),
            (StreamState::Archived, Archived::Excluded) => {
                Err(Error::StreamArchived { stream: stream.clone() })
            }
        }
    }

    /// Whether an event belongs to a page, within its positions.
    fn is_wanted(&self, event: &Recorded, page: &Page<'_>) -> bool {
        let among = |names: Option<&[String]>, name: &str| {
            names.is_none_or(|names| names.iter().any(|one| one == name))
        };
        page.stream.is_none_or(|stream| *stream == event.stream)
            && event.version > page.after_version
            && event.version <= page.up_to_version
            && among(page.categories, event.stream.category())
            && among(page.event_types, &event.event_type)
            && (page.correlation_id)
                .is_none_or(|id| event.metadata.correlation_id.as_deref() == Some(id))
            && (page.archived == Archived::Included
                || self.state(&event.stream) != StreamState::Archived)
    }

    fn append(&mut self, request: Request, clock: &Clock) -> Result<Outcome, Error> {
        if request.keys.iter().any(|key| self.keys.contains_key(&key.key)) {
            return Ok(Outcome::KeyTaken);
        }
        let before: Vec<_> =
            request.streams.iter().map(|(stream, _)| self.version(stream)).collect();
        for (index, (stream, _)) in request.streams.iter().enumerate() {
            let state = self.state(stream);
            if state != StreamState::Live {
                return Ok(Outcome::NotLive { stream: index, state });
            }
        }
        for (stream, (_, expected)) in request.streams.iter().enumerate() {
            if !expected.accepts(before[stream]) {
                return Ok(Outcome::Conflict { stream, actual: before[stream] });
            }
        }
        let times = clock.times(request.events.iter().map(|(_, event)| event))?;
        if let (Some(&Some(given)), Some(last)) = (times.first(), self.last_time())
            && given < last
        {
            return Err(Error::ClockWentBack { given, last });
        }
        let first = Position::START.plus(self.events.len() + 1);
        for key in request.keys {
            let known = KnownKey {
                key: key.key.clone(),
                fingerprint: key.fingerprint.to_vec(),
                version: before[key.stream].plus(key.number),
                position: match key.events {
                    0 => Position::START,
                    _ => Position::new(first.get() + key.last as i64 - 1),
                },
                events: key.events,
            };
            self.keys.insert(key.key, (Instant::now(), known));
        }
        let now = to_micros(Utc::now()).max(self.last_time().unwrap_or_default());
        for ((stream, event), time) in request.events.into_iter().zip(times) {
            let stream = request.streams[stream].0.clone();
            let index = self.events.len();
            self.streams.entry(stream.clone()).or_default().push(index);
            self.events.push(Recorded {
                position: Position::START.plus(index + 1),
                version: self.version(&stream),
                stream,
                id: event.id,
                event_type: event.event_type.into(),
                schema_version: event.schema_version,
                recorded_at: time.unwrap_or(now),
                occurred_at: event.occurred_at,
                metadata: event.metadata,
                event: event.payload,
            });
        }
        Ok(Outcome::Recorded { before, first })
    }
}

#[async_trait]
impl Backend for Memory {
    async fn append(&self, request: Request) -> Result<Outcome, Error> {
        self.log().append(request, &self.clock)
    }

    fn streams<'a>(
        &'a self,
        streams: &'a [StreamId],
        range: Range,
    ) -> BoxStream<'a, Result<(usize, Recorded), Error>> {
        let log = self.log();
        let mut events = Vec::new();
        for (index, stream) in streams.iter().enumerate() {
            match log.readable(stream, range.archived) {
                Ok(true) => {}
                Ok(false) => continue,
                Err(error) => return stream::once(async { Err(error) }).boxed(),
            }
            let all = log.streams.get(stream).into_iter().flatten().map(|at| &log.events[*at]);
            let wanted = all.filter(|event| {
                event.version > range.after
                    && event.version <= range.up_to_version
                    && event.position <= range.up_to_position
            });
            events.extend(wanted.map(|event| Ok((index, event.clone()))));
        }
        events.truncate(usize::try_from(range.limit).unwrap_or(usize::MAX));
        stream::iter(events).boxed()
    }

    async fn page(&self, page: Page<'_>) -> Result<Vec<Recorded>, Error> {
        let log = self.log();
        if let Some(stream) = page.stream
            && !log.readable(stream, page.archived)?
        {
            return Ok(Vec::new());
        }
        let end = log.events.len().min(page.up_to.get() as usize);
        let events = log.events.get(page.after.get() as usize..end).unwrap_or_default().iter();
        let wanted = |event: &&Recorded| log.is_wanted(event, &page);
        Ok(match page.direction {
            Direction::Forward => events.filter(wanted).take(page.limit).cloned().collect(),
            Direction::Backward => events.rev().filter(wanted).take(page.limit).cloned().collect(),
        })
    }

    async fn stream_info(&self, stream: &StreamId) -> Result<Option<StreamInfo>, Error> {
        let log = self.log();
        let version = log.version(stream);
        let info = StreamInfo { version, state: log.state(stream) };
        Ok((version > Version::NONE).then_some(info))
    }

    async fn change_state(
        &self,
        stream: &StreamId,
        expected: ExpectedVersion,
        state: StreamState,
    ) -> Result<Version, Error> {
        self.log().change_state(stream, expected, state)
    }

    async fn remove_keys(&self, older_than: Duration) -> Result<u64, Error> {
        Ok(self.log().remove_keys(older_than))
    }

    async fn known_keys(&self, keys: &[String]) -> Result<Vec<KnownKey>, Error> {
        let log = self.log();
        Ok(keys.iter().filter_map(|key| log.keys.get(key)).map(|(_, key)| key.clone()).collect())
    }

    async fn safe_position(&self) -> Result<Position, Error> {
        Ok(Position::START.plus(self.log().events.len()))
    }

    async fn last_position(&self) -> Result<Position, Error> {
        self.safe_position().await
    }

    async fn position_at(
        &self,
        time: DateTime<Utc>,
        clock: Option<DateTime<Utc>>,
    ) -> Result<Position, Error> {
        let log = self.log();
        // Recording times never decrease.
        let count = log.events.partition_point(|event| event.recorded_at <= time);
        let now = clock.unwrap_or_else(Utc::now);
        if count == log.events.len() && time >= now {
            return Err(Error::Future { at: time, now });
        }
        Ok(Position::START.plus(count))
    }
}
