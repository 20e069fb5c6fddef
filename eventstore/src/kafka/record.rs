//! What a consumer does with a record: the inverse of publishing.

use std::{collections::HashMap, sync::Arc};

use bytes::Bytes;
use chrono::{DateTime, Utc};
use uuid::Uuid;

use crate::{
    error::Error,
    event::{Metadata, MetadataFields, Payload, Recorded},
    ids::{Position, StreamId, Version},
};

/// So many sources or types are remembered. More of them are read all the same.
const REMEMBERED: usize = 1024;

/// The header of a record that is no event.
pub(super) const ENDS_TRANSACTION: &str = "annals-ends-transaction";

/// Why a record is no event of the context.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RecordError {
    /// The record is there for the end of its transaction alone, and says nothing: pass over it. A
    /// publisher writes one where a broker that crashed has lost the end of the transaction before.
    #[error("the record ends a transaction, and is no event")]
    EndsTransaction,
    /// The record has no key, and the key is the stream's.
    #[error("the record has no key")]
    NoKey,
    /// The record has no value: it is a tombstone, and events are never deleted by one.
    #[error("the record has no value")]
    NoValue,
    /// A header is missing that every event has.
    #[error("the header {header} is missing: no publisher of Annals has written the record")]
    MissingHeader {
        /// The header.
        header: &'static str,
    },
    /// A header has a value that no publisher writes.
    #[error("the header {header} is {value:?}: {reason}")]
    InvalidHeader {
        /// The header.
        header: &'static str,
        /// Its value; what is no UTF-8 in it is replaced.
        value: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// The record belongs to another context.
    #[error("the record comes from {source_header:?}, not from the context {context:?}")]
    OtherContext {
        /// The context that was expected.
        context: String,
        /// The value of `ce_source`.
        source_header: String,
    },
    /// Category and key do not make the name of a stream.
    #[error("the record names no stream")]
    Stream(#[source] Error),
    /// The value is not one JSON value.
    #[error("the record's value is no JSON")]
    Value(#[source] serde_json::Error),
}

/// Reads records of a context's topics as the events that they were made of.
///
/// It needs nothing but what the record holds, and works with any client of Kafka. It remembers the
/// categories and types that it has seen; keep one for a consumer, and clone it for each thread.
///
/// ```
/// use annals_eventstore::kafka::RecordReader;
/// # fn run(message: &rdkafka::message::BorrowedMessage) -> Result<(), Box<dyn std::error::Error>> {
/// use rdkafka::message::{Headers, Message};
///
/// let mut reader = RecordReader::new("lending");
/// let headers = message.headers().into_iter().flat_map(|headers| headers.iter());
/// let event = reader.read(
///     message.key(),
///     message.payload(),
///     headers.map(|header| (header.key, header.value)),
/// )?;
/// println!("{}: {} of {}", event.position, event.event_type, event.stream);
/// # Ok(()) }
/// ```
///
/// [`Recorded::decode`] makes a typed event of it, with the upcasters of that type.
#[derive(Clone, Debug)]
pub struct RecordReader {
    /// `/{context}/`.
    root: String,
    sources: HashMap<String, Source>,
}

/// What is known of a value of `ce_source`.
#[derive(Clone, Debug)]
struct Source {
    category: Arc<str>,
    /// What `ce_type` starts with: `{context}.{category}.`.
    prefix: String,
    /// By the value of `ce_type`.
    types: HashMap<String, (Arc<str>, u32)>,
}

impl RecordReader {
    /// A reader for the records of a context.
    pub fn new(context: impl AsRef<str>) -> Self {
        Self { root: format!("/{}/", context.as_ref()), sources: HashMap::new() }
    }

    /// The event that a record was made of.
    ///
    /// Its stream, place, times and type come from the headers, and its payload is the record's
    /// value. The metadata holds what is published of it: see
    /// [`Builder::metadata`](super::Builder::metadata). Of a header that is there several times, the
    /// last one counts; headers of others are passed over.
    ///
    /// # Errors
    /// [`RecordError`] if the record is no event of the context.
    pub fn read<'a>(
        &mut self,
        key: Option<&[u8]>,
        value: Option<&[u8]>,
        headers: impl IntoIterator<Item = (&'a str, Option<&'a [u8]>)>,
    ) -> Result<Recorded, RecordError> {
        let headers = Headers::pick(headers);
        if headers.ends_transaction {
            return Err(RecordError::EndsTransaction);
        }
        let key = key.ok_or(RecordError::NoKey)?;
        let value = value.ok_or(RecordError::NoValue)?;

        let source = self.source(Header::required("ce_source", headers.source)?)?;
        let kind = Header::required("ce_type", headers.kind)?;
        let (event_type, schema_version) = source.event_type(kind)?;
        let stream = stream(source.category.clone(), key, headers.subject)?;

        let time = Header::required("ce_time", headers.time)?.time()?;
        let (recorded_at, occurred_at) = match Header::optional("ce_recordedtime", headers.recorded)
        {
            Some(recorded) => (recorded.time()?, Some(time)),
            None => (time, None),
        };
        let version = Header::required("ce_streamversion", headers.version)?.number()?;
        let position = Header::required("ce_sequence", headers.sequence)?.number()?;
        Ok(Recorded {
            position: Position::new(position),
            stream,
            version: Version::new(version),
            id: Header::required("ce_id", headers.id)?.id()?,
            event_type,
            schema_version,
            recorded_at,
            occurred_at,
            metadata: headers.metadata()?,
            event: Payload::from_json(Bytes::copy_from_slice(value)).map_err(RecordError::Value)?,
        })
    }

    fn source(&mut self, header: Header<'_>) -> Result<&mut Source, RecordError> {
        let text = header.text()?;
        if !self.sources.contains_key(text) {
            let other = || RecordError::OtherContext {
                context: self.root.trim_matches('/').to_owned(),
                source_header: text.to_owned(),
            };
            let category = text.strip_prefix(&self.root).ok_or_else(other)?;
            let context = self.root.trim_matches('/');
            let source = Source {
                category: category.into(),
                prefix: format!("{context}.{category}."),
                types: HashMap::new(),
            };
            remember(&mut self.sources, text, source);
        }
        // It is there: it was, or has just been put there.
        self.sources.get_mut(text).ok_or(RecordError::MissingHeader { header: "ce_source" })
    }
}

impl Source {
    /// A type and its version. The last `.v` separates them, so a type may have dots of its own.
    fn event_type(&mut self, header: Header<'_>) -> Result<(Arc<str>, u32), RecordError> {
        let text = header.text()?;
        if let Some((name, version)) = self.types.get(text) {
            return Ok((name.clone(), *version));
        }
        let rest = text.strip_prefix(&self.prefix);
        let (name, version) = rest
            .and_then(|rest| rest.rsplit_once(".v"))
            .filter(|(name, _)| !name.is_empty())
            .and_then(|(name, version)| Some((name, digits(version)?)))
            .and_then(|(name, version)| Some((name, u32::try_from(version).ok()?)))
            .ok_or_else(|| header.invalid("it is not {context}.{category}.{type}.v{version}"))?;
        let kind = (Arc::from(name), version);
        remember(&mut self.types, text, kind.clone());
        Ok(kind)
    }
}

fn remember<T>(known: &mut HashMap<String, T>, name: &str, what: T) {
    if known.len() >= REMEMBERED {
        known.clear();
    }
    known.insert(name.to_owned(), what);
}

fn stream(category: Arc<str>, key: &[u8], subject: Option<&[u8]>) -> Result<StreamId, RecordError> {
    let subject = Header::required("ce_subject", subject)?;
    if subject.value != key {
        // Partitions are chosen by the key: with another one, the order of the stream is lost.
        return Err(subject.invalid("the record's key is another one"));
    }
    StreamId::of(category, subject.text()?).map_err(RecordError::Stream)
}

/// The headers of an event, as they are.
#[derive(Default)]
struct Headers<'a> {
    id: Option<&'a [u8]>,
    source: Option<&'a [u8]>,
    kind: Option<&'a [u8]>,
    subject: Option<&'a [u8]>,
    time: Option<&'a [u8]>,
    recorded: Option<&'a [u8]>,
    sequence: Option<&'a [u8]>,
    version: Option<&'a [u8]>,
    correlation: Option<&'a [u8]>,
    causation: Option<&'a [u8]>,
    traceparent: Option<&'a [u8]>,
    actor: Option<&'a [u8]>,
    custom: Option<&'a [u8]>,
    ends_transaction: bool,
}

impl<'a> Headers<'a> {
    fn pick(all: impl IntoIterator<Item = (&'a str, Option<&'a [u8]>)>) -> Self {
        let mut picked = Self::default();
        for (name, value) in all {
            let place = match name {
                "ce_id" => &mut picked.id,
                "ce_source" => &mut picked.source,
                "ce_type" => &mut picked.kind,
                "ce_subject" => &mut picked.subject,
                "ce_time" => &mut picked.time,
                "ce_recordedtime" => &mut picked.recorded,
                "ce_sequence" => &mut picked.sequence,
                "ce_streamversion" => &mut picked.version,
                "ce_correlationid" => &mut picked.correlation,
                "ce_causationid" => &mut picked.causation,
                "traceparent" => &mut picked.traceparent,
                "ce_actor" => &mut picked.actor,
                "ce_custommetadata" => &mut picked.custom,
                ENDS_TRANSACTION => {
                    picked.ends_transaction = true;
                    continue;
                }
                _ => continue,
            };
            *place = value;
        }
        picked
    }

    fn metadata(&self) -> Result<Metadata, RecordError> {
        let mut metadata = MetadataFields::default();
        for (name, value, place) in [
            ("ce_correlationid", self.correlation, &mut metadata.correlation_id),
            ("ce_causationid", self.causation, &mut metadata.causation_id),
            ("traceparent", self.traceparent, &mut metadata.traceparent),
            ("ce_actor", self.actor, &mut metadata.actor),
        ] {
            if let Some(header) = Header::optional(name, value) {
                *place = Some(header.text()?.to_owned());
            }
        }
        if let Some(header) = Header::optional("ce_custommetadata", self.custom) {
            metadata.custom = serde_json::from_slice(header.value)
                .map_err(|_| header.invalid("it is no JSON object"))?;
        }
        Ok(metadata.into())
    }
}

/// A header that is there.
#[derive(Clone, Copy)]
struct Header<'a> {
    name: &'static str,
    value: &'a [u8],
}

impl<'a> Header<'a> {
    fn required(name: &'static str, value: Option<&'a [u8]>) -> Result<Self, RecordError> {
        Self::optional(name, value).ok_or(RecordError::MissingHeader { header: name })
    }

    fn optional(name: &'static str, value: Option<&'a [u8]>) -> Option<Self> {
        value.map(|value| Self { name, value })
    }

    fn text(self) -> Result<&'a str, RecordError> {
        std::str::from_utf8(self.value).map_err(|_| self.invalid("it is no UTF-8"))
    }

    fn time(self) -> Result<DateTime<Utc>, RecordError> {
        self.text()?.parse().map_err(|_| self.invalid("it is no time as in RFC 3339"))
    }

    fn id(self) -> Result<Uuid, RecordError> {
        Uuid::try_parse_ascii(self.value).map_err(|_| self.invalid("it is no UUID"))
    }

    fn number(self) -> Result<i64, RecordError> {
        digits(self.text()?).ok_or_else(|| self.invalid("it is no number from 1 to 2^63 - 1"))
    }

    fn invalid(self, reason: &'static str) -> RecordError {
        let value = String::from_utf8_lossy(self.value).into_owned();
        RecordError::InvalidHeader { header: self.name, value, reason }
    }
}

/// A number from 1 in digits alone. (`parse` would take a sign.)
fn digits(text: &str) -> Option<i64> {
    let all = text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse().ok().filter(|number| all && *number > 0)
}

#[cfg(test)]
mod tests;
