//! The store in memory: the same behaviour for unit tests, without a database.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use futures::{StreamExt, stream, stream::BoxStream};

use crate::{
    backend::{Backend, KnownKey, Outcome, Page, Range, Request},
    clock::{Clock, to_micros},
    error::Error,
    event::Recorded,
    ids::{Position, StreamId, Version},
};

/// A log in memory. An append holds the lock from its checks to its end, so there is never one in
/// flight: every position is safe.
#[derive(Debug)]
pub(crate) struct Memory {
    log: Mutex<Log>,
    clock: Clock,
}

#[derive(Debug, Default)]
struct Log {
    /// The event at position `p` stands at index `p - 1`.
    events: Vec<Recorded>,
    /// The indexes of each stream's events.
    streams: HashMap<StreamId, Vec<usize>>,
    keys: HashMap<String, KnownKey>,
    /// The latest time that an as-of question found to have come: the system's clock stamps nothing
    /// before it, also if it is set back.
    asked: Option<DateTime<Utc>>,
}

impl Memory {
    pub(crate) fn new(clock: Clock) -> Self {
        Self { log: Mutex::default(), clock }
    }

    fn log(&self) -> MutexGuard<'_, Log> {
        // The log is changed after all checks, so a panic elsewhere leaves it whole.
        self.log.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Log {
    fn version(&self, stream: &StreamId) -> Version {
        Version::NONE.plus(self.streams.get(stream).map_or(0, Vec::len))
    }

    fn last_time(&self) -> Option<DateTime<Utc>> {
        self.events.last().map(|event| event.recorded_at)
    }

    fn append(&mut self, request: Request, clock: &Clock) -> Result<Outcome, Error> {
        if request.keys.iter().any(|key| self.keys.contains_key(&key.key)) {
            return Ok(Outcome::KeyTaken);
        }
        let before: Vec<_> =
            request.streams.iter().map(|(stream, _)| self.version(stream)).collect();
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
            self.keys.insert(key.key, known);
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
        let after = log.events.iter().skip(page.after.get() as usize);
        let wanted = after.take_while(|event| event.position <= page.up_to).filter(|event| {
            page.categories.is_none_or(|names| names.iter().any(|n| n == event.stream.category()))
        });
        Ok(wanted.take(page.limit).cloned().collect())
    }

    async fn known_keys(&self, keys: &[String]) -> Result<Vec<KnownKey>, Error> {
        let log = self.log();
        Ok(keys.iter().filter_map(|key| log.keys.get(key).cloned()).collect())
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
        let mut log = self.log();
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
