//! An event as the store holds it.

use std::sync::Arc;

use bytes::Bytes;
use chrono::{DateTime, Utc};
use uuid::Uuid;

use super::{Decoded, Event, Metadata};
use crate::{
    error::Error,
    ids::{Position, StreamId, Version},
};

/// The JSON of an event's fields, exactly as stored.
#[derive(Clone, PartialEq, Eq)]
pub struct Payload(Bytes);

impl Payload {
    /// Takes JSON text.
    ///
    /// # Errors
    /// Fails if the bytes are not one valid JSON value.
    pub fn from_json(json: impl Into<Bytes>) -> Result<Self, serde_json::Error> {
        let json = json.into();
        // To a value, so that its strings are looked into: what is no text is no JSON either.
        serde_json::from_slice::<serde_json::Value>(&json)?;
        Ok(Self(json))
    }

    pub(crate) fn from_valid_json(json: impl Into<Bytes>) -> Self {
        Self(json.into())
    }

    /// The JSON text.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl std::fmt::Debug for Payload {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&String::from_utf8_lossy(&self.0))
    }
}

/// A recorded event with its place in the log; `E` is the typed event, or the raw [`Payload`].
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Recorded<E = Payload> {
    /// Its place in the log of the whole store. Positions rise, with holes.
    pub position: Position,
    /// The stream that it belongs to.
    pub stream: StreamId,
    /// Its number in the stream: 1, 2, 3, without holes.
    pub version: Version,
    /// Its unique id.
    pub id: Uuid,
    /// The stored name of its type.
    pub event_type: Arc<str>,
    /// The schema version that its payload was written with.
    pub schema_version: u32,
    /// When the store recorded it. It never decreases from one position to the next.
    pub recorded_at: DateTime<Utc>,
    /// When it happened, if the caller said so.
    pub occurred_at: Option<DateTime<Utc>>,
    /// Correlation, causation, actor, trace and the caller's own.
    pub metadata: Metadata,
    /// The event.
    pub event: E,
}

impl Recorded {
    /// Decodes the payload: into one event as a rule, and into several or none where its type was
    /// split or dropped. Each has the record of the stored event: its position and version, its id, and
    /// the type and the schema version that it was stored with.
    ///
    /// ```
    /// # use annals_eventstore::{Error, Event, Recorded};
    /// fn count<E: Event>(stored: Vec<Recorded>) -> Result<usize, Error> {
    ///     let mut count = 0;
    ///     for stored in stored {
    ///         for event in stored.decode::<E>()? {
    ///             println!("{}: {}", event.position, event.event.event_type().name);
    ///             count += 1;
    ///         }
    ///     }
    ///     Ok(count)
    /// }
    /// ```
    ///
    /// # Errors
    /// [`Error::Decode`] names the stream, the version and the type of the event.
    pub fn decode<E: Event>(self) -> Result<Decoded<Recorded<E>>, Error> {
        match E::decode(&self.event_type, self.schema_version, &self.event) {
            Ok(Decoded::One(event)) => Ok(Decoded::One(self.with_event(event))),
            Ok(Decoded::Many(events)) => {
                let records = events.into_iter().map(|event| self.clone().with_event(event));
                Ok(Decoded::Many(records.collect()))
            }
            Err(source) => Err(Error::Decode {
                stream: self.stream,
                version: self.version,
                event_type: self.event_type.to_string(),
                schema_version: self.schema_version,
                source,
            }),
        }
    }
}

impl<E> Recorded<E> {
    /// The same record around another event: what tests and mappings need.
    pub fn with_event<F>(self, event: F) -> Recorded<F> {
        Recorded {
            position: self.position,
            stream: self.stream,
            version: self.version,
            id: self.id,
            event_type: self.event_type,
            schema_version: self.schema_version,
            recorded_at: self.recorded_at,
            occurred_at: self.occurred_at,
            metadata: self.metadata,
            event,
        }
    }
}
