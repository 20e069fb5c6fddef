//! The store in memory: the same behaviour for unit tests, without a database.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use async_trait::async_trait;
use chrono::{DateTime, Utc};

use crate::{
    append::ExpectedVersion,
    backend::{
        Backend, KnownKey, Load, NewSnapshot, Outcome, Page, Part, Request, Session, StoredEvent,
        StoredSnapshot,
    },
    clock::{Clock, to_micros},
    error::Error,
    event::Recorded,
    ids::{Position, StreamId, Version},
    life::{StreamInfo, StreamState},
    postgres::{Client, SqlProjection},
    query::{Archived, Direction},
};

/// A log in memory. An append holds the lock from its checks to its end, so there is never one in
/// flight: every position is safe.
#[derive(Clone, Debug)]
pub(crate) struct Memory {
    log: Arc<Mutex<Log>>,
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
    closed: bool,
    snapshots: HashMap<StreamId, Vec<NewSnapshot>>,
    /// The latest time that an as-of question found to have come: the system's clock stamps nothing
    /// before it, also if it is set back.
    asked: Option<DateTime<Utc>>,
}

impl Memory {
    pub(crate) fn new(clock: Clock, retention: Option<Duration>) -> Self {
        Self { log: Arc::default(), clock, retention }
    }

    /// The log of a store that is not closed.
    fn open(&self) -> Result<MutexGuard<'_, Log>, Error> {
        let log = self.log();
        if log.closed { Err(Error::Closed) } else { Ok(log) }
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

    fn load(&self, load: &Load) -> Part {
        let state = self.state(&load.stream);
        if self.readable(&load.stream, load.archived).ok() != Some(true) {
            return Part { state, ..Part::default() };
        }
        let latest = load.snapshot.and_then(|kind| {
            let snapshots = self.snapshots.get(&load.stream)?.iter();
            let wanted = snapshots.filter(|snapshot| {
                snapshot.kind == kind
                    && snapshot.version > load.after
                    && snapshot.version <= load.up_to_version
                    && snapshot.position <= load.up_to_position
            });
            wanted.max_by_key(|snapshot| snapshot.version)
        });
        let after = latest.map_or(load.after, |snapshot| snapshot.version);
        let all = self.streams.get(&load.stream).into_iter().flatten().map(|at| &self.events[*at]);
        let wanted = all.filter(|event| {
            event.version > after
                && event.version <= load.up_to_version
                && event.position <= load.up_to_position
        });
        Part {
            state,
            snapshot: latest.map(|snapshot| StoredSnapshot {
                version: snapshot.version,
                position: snapshot.position,
                state: snapshot.state.clone().into(),
            }),
            events: wanted
                .map(|event| StoredEvent {
                    version: event.version,
                    position: event.position,
                    event_type: event.event_type.clone(),
                    schema_version: event.schema_version,
                    payload: event.event.clone(),
                })
                .collect(),
            more: false,
            is_behind: self.version(&load.stream) < load.after,
        }
    }

    fn save_snapshot(&mut self, new: NewSnapshot) {
        let snapshots = self.snapshots.entry(new.stream.clone()).or_default();
        snapshots.retain(|old| {
            old.kind.name != new.kind.name || (old.kind == new.kind && old.version != new.version)
        });
        let keep = new.keep;
        let kind = new.kind;
        snapshots.push(new);
        snapshots.sort_by_key(|snapshot| std::cmp::Reverse(snapshot.version));
        let mut of_this_kind = 0;
        snapshots.retain(|snapshot| {
            of_this_kind += u32::from(snapshot.kind == kind);
            snapshot.kind != kind || keep.is_none_or(|keep| of_this_kind <= keep)
        });
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
            && page.event_id.is_none_or(|id| event.id == id)
            && (page.archived == Archived::Included
                || self.state(&event.stream) != StreamState::Archived)
    }

    fn append(&mut self, request: Request, clock: &Clock) -> Result<Outcome, Error> {
        if request.keys.iter().any(|key| self.keys.contains_key(&key.key)) {
            return Ok(Outcome::KeyTaken);
        }
        let mut before = Vec::with_capacity(request.streams.len());
        for (index, (stream, expected)) in request.streams.iter().enumerate() {
            let state = self.state(stream);
            // Who read a deleted stream found none. An append that only rests on that is recorded.
            let rests_on_none = state == StreamState::Deleted
                && matches!(
                    expected,
                    ExpectedVersion::NoStream | ExpectedVersion::Exact(Version::NONE)
                )
                && request.events.iter().all(|(stream, _)| *stream != index);
            if state != StreamState::Live && !rests_on_none {
                return Ok(Outcome::NotLive { stream: index, state });
            }
            before.push(if rests_on_none { Version::NONE } else { self.version(stream) });
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
        let now = to_micros(Utc::now()).max(self.last_time().max(self.asked).unwrap_or_default());
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
        self.open()?.append(request, &self.clock)
    }

    async fn close(&self, _: Option<Duration>) -> usize {
        self.log().closed = true;
        0
    }

    async fn load(&self, loads: Vec<Load>) -> Result<Vec<Part>, Error> {
        let log = self.open()?;
        Ok(loads.iter().map(|load| log.load(load)).collect())
    }

    async fn save_snapshot(&self, snapshot: NewSnapshot) -> Result<(), Error> {
        self.open()?.save_snapshot(snapshot);
        Ok(())
    }

    async fn begin(&self) -> Result<Box<dyn Session>, Error> {
        Ok(Box::new(self.clone()))
    }

    async fn page(&self, page: Page<'_>) -> Result<Vec<Recorded>, Error> {
        let log = self.open()?;
        if let Some(stream) = page.stream
            && !log.readable(stream, page.archived)?
        {
            return Ok(Vec::new());
        }
        let end = log.events.len().min(page.up_to.get() as usize);
        let events = log.events.get(page.after.get() as usize..end).unwrap_or_default().iter();
        let mut bytes = 0;
        let within = |event: &&Recorded| {
            let is_within = bytes < page.bytes;
            bytes += event.event.as_bytes().len();
            is_within
        };
        let wanted = |event: &&Recorded| log.is_wanted(event, &page);
        Ok(match page.direction {
            Direction::Forward => {
                events.filter(wanted).take(page.limit).take_while(within).cloned().collect()
            }
            Direction::Backward => {
                events.rev().filter(wanted).take(page.limit).take_while(within).cloned().collect()
            }
        })
    }

    async fn stream_info(&self, stream: &StreamId) -> Result<Option<StreamInfo>, Error> {
        let log = self.open()?;
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
        self.open()?.change_state(stream, expected, state)
    }

    async fn remove_keys(&self, older_than: Duration) -> Result<u64, Error> {
        Ok(self.open()?.remove_keys(older_than))
    }

    async fn known_keys(&self, keys: &[String]) -> Result<Vec<KnownKey>, Error> {
        let log = self.open()?;
        Ok(keys.iter().filter_map(|key| log.keys.get(key)).map(|(_, key)| key.clone()).collect())
    }

    async fn safe_position(&self) -> Result<Position, Error> {
        Ok(Position::START.plus(self.open()?.events.len()))
    }

    async fn last_position(&self) -> Result<Position, Error> {
        self.safe_position().await
    }

    async fn position_at(
        &self,
        time: DateTime<Utc>,
        clock: Option<DateTime<Utc>>,
    ) -> Result<Position, Error> {
        let mut log = self.open()?;
        // Recording times never decrease.
        let count = log.events.partition_point(|event| event.recorded_at <= time);
        let now = clock.unwrap_or_else(|| to_micros(Utc::now()).max(log.asked.unwrap_or_default()));
        if count == log.events.len() {
            if time >= now {
                return Err(Error::Future { at: time, now });
            }
            if clock.is_none() {
                log.asked = log.asked.max(Some(now));
            }
        }
        Ok(Position::START.plus(count))
    }
}

/// A unit reads what is there and writes once, at its end, so it needs no transaction here.
#[async_trait]
impl Session for Memory {
    async fn load(&self, loads: Vec<Load>) -> Result<Vec<Part>, Error> {
        Backend::load(self, loads).await
    }

    async fn known_keys(&self, keys: &[String]) -> Result<Vec<KnownKey>, Error> {
        Backend::known_keys(self, keys).await
    }

    fn sql(&self) -> Result<&Client, Error> {
        Err(Error::NeedsPostgres { what: "SQL in a unit of work" })
    }

    async fn commit(
        self: Box<Self>,
        request: Request,
        _: &[Arc<dyn SqlProjection>],
    ) -> Result<Outcome, Error> {
        self.log().append(request, &self.clock)
    }

    async fn rollback(self: Box<Self>) -> Result<(), Error> {
        Ok(())
    }
}
