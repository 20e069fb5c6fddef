//! An event as the headers of a record: CloudEvents 1.0, Kafka protocol binding, binary mode.

use std::fmt::Write;

use chrono::{DateTime, SecondsFormat, Utc};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use uuid::Uuid;

use crate::{error::Error, event::Recorded};

/// The most headers that an event has.
pub(super) const MAX_HEADERS: usize = 17;

/// Which metadata of an event its record bears. Set it with
/// [`Builder::metadata`](super::Builder::metadata).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Disclosure {
    /// What links messages: correlation, causation, trace context.
    #[default]
    Links,
    /// Also who did it (`ce_actor`), and the caller's own keys (`ce_custommetadata`, a JSON object).
    /// Nothing is held back then: look at what is in there before it leaves the context.
    All,
}

/// What is left as it is in the name of a file. A type that a derive has named has nothing else.
const NAME: &AsciiSet = &NON_ALPHANUMERIC.remove(b'.').remove(b'_').remove(b'-');

/// Where the schemas of payloads are.
#[derive(Clone, Debug)]
pub(super) struct Schemas(String);

impl Schemas {
    /// Below an address, which has a scheme and ends with a slash, or gets one.
    pub(super) fn below(base: &str) -> Result<Self, Error> {
        let absolute = base.split_once(':').is_some_and(|(scheme, rest)| {
            scheme.starts_with(|first: char| first.is_ascii_alphabetic()) && !rest.is_empty()
        });
        if !absolute || !base.bytes().all(|byte| byte.is_ascii_graphic()) {
            let action = format!("tell where schemas are: {base:?}");
            let reason =
                "it is no absolute URL in ASCII, such as https://schemas.example.org/lending/";
            return Err(Error::Broker { action, source: reason.into() });
        }
        let slash = if base.ends_with('/') { "" } else { "/" };
        Ok(Self(format!("{base}{slash}")))
    }
}

/// Writes headers. It keeps its buffer between events: headers are half the cost of a record.
#[derive(Debug)]
pub(super) struct Headers {
    context: String,
    disclosure: Disclosure,
    schemas: Option<Schemas>,
    buffer: String,
}

impl Headers {
    pub(super) fn new(context: &str, disclosure: Disclosure, schemas: Option<Schemas>) -> Self {
        Self { context: context.to_owned(), disclosure, schemas, buffer: String::new() }
    }

    /// Hands each header of an event to `put`.
    pub(super) fn write(&mut self, event: &Recorded, mut put: impl FnMut(&'static str, &[u8])) {
        let Self { context, disclosure, schemas, buffer } = self;
        let mut put_formatted = |name, arguments: std::fmt::Arguments<'_>| {
            buffer.clear();
            // Writing to a string does not fail.
            let _ = buffer.write_fmt(arguments);
            put(name, buffer.as_bytes());
        };
        let category = event.stream.category();
        put_formatted(
            "ce_type",
            format_args!("{context}.{category}.{}.v{}", event.event_type, event.schema_version),
        );
        put_formatted("ce_source", format_args!("/{context}/{category}"));
        put_formatted("ce_sequence", format_args!("{:020}", event.position.get()));
        put_formatted("ce_streamversion", format_args!("{}", event.version));

        if let Some(Schemas(base)) = schemas {
            let kind = utf8_percent_encode(&event.event_type, NAME);
            let version = event.schema_version;
            put_formatted("ce_dataschema", format_args!("{base}{category}.{kind}.v{version}.json"));
        }

        put("content-type", b"application/json");
        put("ce_specversion", b"1.0");
        let mut id = Uuid::encode_buffer();
        put("ce_id", event.id.hyphenated().encode_lower(&mut id).as_bytes());
        let key = event.stream.key().as_bytes();
        put("ce_subject", key);
        put("ce_partitionkey", key);
        let recorded = rfc3339(event.recorded_at);
        match event.occurred_at {
            Some(time) => {
                put("ce_time", rfc3339(time).as_bytes());
                put("ce_recordedtime", recorded.as_bytes());
            }
            None => put("ce_time", recorded.as_bytes()),
        }
        let metadata = &event.metadata;
        for (name, value) in [
            ("ce_correlationid", &metadata.correlation_id),
            ("ce_causationid", &metadata.causation_id),
            ("traceparent", &metadata.traceparent),
        ] {
            if let Some(value) = value {
                put(name, value.as_bytes());
            }
        }
        if *disclosure == Disclosure::All {
            if let Some(actor) = &metadata.actor {
                put("ce_actor", actor.as_bytes());
            }
            if !metadata.custom.is_empty() {
                // A map of JSON values is JSON.
                let custom = serde_json::to_vec(&metadata.custom).unwrap_or_default();
                put("ce_custommetadata", &custom);
            }
        }
    }
}

fn rfc3339(time: DateTime<Utc>) -> String {
    time.to_rfc3339_opts(SecondsFormat::Micros, true)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::{
        event::{Metadata, Payload},
        ids::{Position, StreamId, Version},
    };

    fn event(metadata: Metadata, occurred_at: Option<&str>) -> Recorded {
        Recorded {
            position: Position::new(1234),
            stream: StreamId::new("loan", "LN-7 é").unwrap(),
            version: Version::new(3),
            id: Uuid::from_u128(0x0190_1234_5678_7abc_8def_0123_4567_89ab),
            event_type: "Accepted".into(),
            schema_version: 2,
            recorded_at: "2011-10-01T00:38:44.546Z".parse().unwrap(),
            occurred_at: occurred_at.map(|time| time.parse().unwrap()),
            metadata,
            event: Payload::from_json("{}").unwrap(),
        }
    }

    fn headers(event: &Recorded) -> BTreeMap<&'static str, String> {
        written(Headers::new("eu.lending", Disclosure::Links, None), event)
    }

    fn disclosed(event: &Recorded) -> BTreeMap<&'static str, String> {
        let schemas = Schemas::below("https://schemas.example.org/lending").unwrap();
        written(Headers::new("eu.lending", Disclosure::All, Some(schemas)), event)
    }

    fn written(mut headers: Headers, event: &Recorded) -> BTreeMap<&'static str, String> {
        let mut all = BTreeMap::new();
        headers.write(event, |name, value| {
            let before = all.insert(name, String::from_utf8(value.to_vec()).unwrap());
            assert_eq!(before, None, "{name} twice");
        });
        assert!(all.len() <= MAX_HEADERS);
        all
    }

    #[test]
    fn an_event_without_metadata_has_the_required_headers_only() {
        let expected = BTreeMap::from(
            [
                ("content-type", "application/json"),
                ("ce_specversion", "1.0"),
                ("ce_id", "01901234-5678-7abc-8def-0123456789ab"),
                ("ce_source", "/eu.lending/loan"),
                ("ce_type", "eu.lending.loan.Accepted.v2"),
                ("ce_subject", "LN-7 é"),
                ("ce_partitionkey", "LN-7 é"),
                ("ce_time", "2011-10-01T00:38:44.546000Z"),
                ("ce_sequence", "00000000000000001234"),
                ("ce_streamversion", "3"),
            ]
            .map(|(name, value)| (name, value.to_owned())),
        );
        assert_eq!(headers(&event(Metadata::new(), None)), expected);
    }

    #[test]
    fn metadata_and_the_time_of_happening_are_told() {
        let trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
        let metadata = Metadata::new().correlation_id("c").causation_id("d").traceparent(trace);
        let headers = headers(&event(metadata, Some("2011-09-30T12:00:00.000001Z")));
        assert_eq!(headers["ce_time"], "2011-09-30T12:00:00.000001Z");
        assert_eq!(headers["ce_recordedtime"], "2011-10-01T00:38:44.546000Z");
        assert_eq!(headers["ce_correlationid"], "c");
        assert_eq!(headers["ce_causationid"], "d");
        assert_eq!(headers["traceparent"], trace);
        assert_eq!(headers.len(), 14);
    }

    #[test]
    fn the_actor_and_the_custom_keys_are_told_on_request_only() {
        let metadata = Metadata::new().actor("ada").with("channel", "web").with("n", 1.5);
        let event = event(metadata, None);
        assert_eq!(headers(&event).len(), 10);
        let headers = disclosed(&event);
        assert_eq!(headers["ce_actor"], "ada");
        assert_eq!(headers["ce_custommetadata"], r#"{"channel":"web","n":1.5}"#);
        assert_eq!(headers.len(), 13);
    }

    #[test]
    fn the_schema_is_told_where_it_is_known_where_schemas_are() {
        let mut event = event(Metadata::new(), None);
        let schema = |event: &Recorded| disclosed(event).remove("ce_dataschema").unwrap();
        let below = "https://schemas.example.org/lending/";
        assert_eq!(schema(&event), format!("{below}loan.Accepted.v2.json"));
        event.event_type = "risk.v2/scored é".into();
        assert_eq!(schema(&event), format!("{below}loan.risk.v2%2Fscored%20%C3%A9.v2.json"));
    }

    #[test]
    fn attribute_names_are_lower_case_letters_and_digits() {
        let metadata = Metadata::new().correlation_id("c").causation_id("d").traceparent("t");
        let event = event(metadata.actor("a").with("n", 1), Some("2011-09-30T12:00:00Z"));
        let headers = disclosed(&event);
        assert_eq!(headers.len(), MAX_HEADERS);
        for name in headers.keys() {
            let Some(attribute) = name.strip_prefix("ce_") else { continue };
            let legal = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
            assert!(attribute.len() <= 20 && attribute.bytes().all(legal), "{name}");
        }
    }
}
