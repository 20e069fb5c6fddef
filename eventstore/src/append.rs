//! What an append asks for, and what comes of it.

use std::fmt;

use chrono::{DateTime, Utc};
use uuid::Uuid;

use crate::{
    error::Error,
    event::{Event, Metadata, Payload, Recorded},
    ids::{Position, StreamId, Version},
};

/// The state that a stream must be in for an append to go through.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ExpectedVersion {
    /// Whatever it is.
    Any,
    /// It has no events.
    NoStream,
    /// It has at least one event.
    Exists,
    /// Its last event has exactly this version.
    Exact(Version),
}

impl ExpectedVersion {
    /// True if a stream at `actual` is as expected.
    pub fn accepts(self, actual: Version) -> bool {
        match self {
            Self::Any => true,
            Self::NoStream => actual == Version::NONE,
            Self::Exists => actual > Version::NONE,
            Self::Exact(version) => actual == version,
        }
    }
}

impl fmt::Display for ExpectedVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Any => f.write_str("any version"),
            Self::NoStream => f.write_str("no stream"),
            Self::Exists => f.write_str("an existing stream"),
            Self::Exact(version) => write!(f, "version {version}"),
        }
    }
}

/// An event to be appended.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct NewEvent {
    /// Its unique id: a UUID of version 7 unless set.
    pub id: Uuid,
    /// The stored name of its type.
    pub event_type: String,
    /// The version of its payload's shape.
    pub schema_version: u32,
    /// Its payload.
    pub payload: Payload,
    /// Its metadata.
    pub metadata: Metadata,
    /// When it happened.
    pub occurred_at: Option<DateTime<Utc>>,
    /// When it counts as recorded; only for a store with a supplied clock.
    pub recorded_at: Option<DateTime<Utc>>,
    /// How many bytes its payload and its metadata take as JSON, once that has been checked.
    pub(crate) bytes: usize,
}

impl NewEvent {
    /// Encodes a typed event.
    ///
    /// # Errors
    /// [`Error::Encode`] if the event cannot be written as JSON.
    pub fn of<E: Event>(event: &E) -> Result<Self, Error> {
        let kind = event.event_type();
        let payload = event
            .encode()
            .map_err(|source| Error::Encode { what: kind.name.to_owned(), source })?;
        Ok(Self::raw(kind.name, kind.version, payload))
    }

    /// An event that is JSON already.
    pub fn raw(event_type: impl Into<String>, schema_version: u32, payload: Payload) -> Self {
        Self {
            id: Uuid::now_v7(),
            event_type: event_type.into(),
            schema_version,
            payload,
            metadata: Metadata::new(),
            occurred_at: None,
            recorded_at: None,
            bytes: 0,
        }
    }

    /// The event as a record that has no place in the log yet: no position and no recording time.
    pub(crate) fn provisional(&self, stream: &StreamId, version: Version) -> Recorded {
        Recorded {
            position: Position::START,
            stream: stream.clone(),
            version,
            id: self.id,
            event_type: self.event_type.as_str().into(),
            schema_version: self.schema_version,
            recorded_at: DateTime::UNIX_EPOCH,
            occurred_at: self.occurred_at,
            metadata: self.metadata.clone(),
            event: self.payload.clone(),
        }
    }

    /// Sets the metadata.
    #[must_use]
    pub fn metadata(mut self, metadata: Metadata) -> Self {
        self.metadata = metadata;
        self
    }

    /// Says when it happened.
    #[must_use]
    pub fn occurred_at(mut self, time: DateTime<Utc>) -> Self {
        self.occurred_at = Some(time);
        self
    }

    /// Says when it counts as recorded; only for a store with a supplied clock.
    #[must_use]
    pub fn recorded_at(mut self, time: DateTime<Utc>) -> Self {
        self.recorded_at = Some(time);
        self
    }
}

/// Events for one or several streams, recorded together or not at all.
///
/// ```
/// # use annals_eventstore::{Append, ExpectedVersion, NewEvent, Payload, StreamId};
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let opened = NewEvent::raw("opened", 1, Payload::from_json(r#"{"owner":"Ada"}"#)?);
/// let append = Append::to(StreamId::new("account", 7)?, ExpectedVersion::NoStream, [opened])
///     .idempotency_key("request-1");
/// # Ok(()) }
/// ```
#[derive(Clone, Debug)]
pub struct Append {
    pub(crate) streams: Vec<(StreamId, ExpectedVersion)>,
    /// In the order of their positions, each with the index of its stream.
    pub(crate) events: Vec<(usize, NewEvent)>,
    pub(crate) idempotency_key: Option<String>,
}

impl Append {
    /// Events for one stream.
    pub fn to(
        stream: StreamId,
        expected: ExpectedVersion,
        events: impl IntoIterator<Item = NewEvent>,
    ) -> Self {
        Self { streams: Vec::new(), events: Vec::new(), idempotency_key: None }
            .and(stream, expected, events)
    }

    /// Adds events for another stream, to be recorded after those before.
    #[must_use]
    pub fn and(
        mut self,
        stream: StreamId,
        expected: ExpectedVersion,
        events: impl IntoIterator<Item = NewEvent>,
    ) -> Self {
        let index = self.streams.len();
        self.streams.push((stream, expected));
        self.events.extend(events.into_iter().map(|event| (index, event)));
        self
    }

    /// Makes the append idempotent: the same key and content again return the recorded outcome.
    #[must_use]
    pub fn idempotency_key(mut self, key: impl Into<String>) -> Self {
        self.idempotency_key = Some(key.into());
        self
    }
}

impl Append {
    /// Each of its streams stands in it once, with events.
    pub(crate) fn check_streams(&self) -> Result<(), Error> {
        let (streams, events) = (&self.streams, &self.events);
        let mut names: Vec<_> = streams.iter().map(|(stream, _)| stream).collect();
        names.sort_unstable();
        if let Some(twice) = names.windows(2).find(|pair| pair[0] == pair[1]) {
            return Err(Error::invalid_append(format!("stream {} is named twice", twice[0])));
        }
        if let Some(index) =
            (0..streams.len()).find(|index| events.iter().all(|(stream, _)| stream != index))
        {
            return Err(Error::invalid_append(format!("no events for {}", streams[index].0)));
        }
        Ok(())
    }
}

/// What an append recorded.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Appended {
    /// The versions of each stream after the append, in the order of the append.
    pub versions: Vec<(StreamId, Version)>,
    /// The position of its first event. Its events have neighbouring positions.
    pub first_position: Position,
    /// The position of its last event.
    pub last_position: Position,
    /// True if an earlier append under the same idempotency key recorded it.
    pub replayed: bool,
}
