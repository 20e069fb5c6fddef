//! Writing and reading are inverse, and what no publisher writes is refused by name.

use std::collections::BTreeMap;

use proptest::{collection::vec, option, prelude::*};

use super::*;
use crate::kafka::cloud_events::{Disclosure, Headers as Writer};

type Written = BTreeMap<&'static str, Vec<u8>>;

fn write(context: &str, disclosure: Disclosure, event: &Recorded) -> Written {
    let mut written = BTreeMap::new();
    Writer::new(context, disclosure, None).write(event, |name, value| {
        written.insert(name, value.to_vec());
    });
    written
}

fn read(context: &str, written: &Written, event: &Recorded) -> Result<Recorded, RecordError> {
    RecordReader::new(context).read(
        Some(event.stream.key().as_bytes()),
        Some(event.event.as_bytes()),
        written.iter().map(|(name, value)| (*name, Some(value.as_slice()))),
    )
}

/// A moment of any time that PostgreSQL and we can tell, in microseconds.
fn moment() -> impl Strategy<Value = DateTime<Utc>> {
    let wide = -60_000_000_000_000_000_i64..250_000_000_000_000_000;
    let near = 0_i64..4_000_000_000_000_000;
    prop_oneof![wide, near].prop_map(|micros| DateTime::from_timestamp_micros(micros).unwrap())
}

fn metadata() -> impl Strategy<Value = Metadata> {
    let text = || option::of(".{0,20}");
    let custom = vec((".{0,8}", prop_oneof![".{0,8}".prop_map(Into::into), Just(7.into())]), 0..3);
    (text(), text(), text(), text(), custom).prop_map(
        |(correlation_id, causation_id, actor, traceparent, custom)| {
            let custom = custom.into_iter().collect();
            MetadataFields { correlation_id, causation_id, actor, traceparent, custom }.into()
        },
    )
}

fn event() -> impl Strategy<Value = Recorded> {
    let names = ("[a-z][a-z0-9_]{0,63}", "[^\\pC]{1,60}");
    let kind = ("[a-zA-Z_.v0-9 -]{1,30}|[^\\pC]{1,30}", 1..=i32::MAX as u32);
    let place = (1..=i64::MAX, 1..=i64::MAX, any::<u128>());
    let same = any::<bool>();
    (names, kind, place, moment(), option::of(moment()), same, metadata()).prop_map(
        |(
            (category, key),
            kind,
            (position, version, id),
            recorded_at,
            occurred,
            same,
            metadata,
        )| {
            Recorded {
                position: Position::new(position),
                stream: StreamId::new(category, key).unwrap(),
                version: Version::new(version),
                id: Uuid::from_u128(id),
                event_type: kind.0.into(),
                schema_version: kind.1,
                recorded_at,
                // An event may have happened in the very moment in which it was recorded.
                occurred_at: if same { occurred.map(|_| recorded_at) } else { occurred },
                metadata,
                event: Payload::from_json(r#"{ "a": [1.50, "é\u00e9"] }"#).unwrap(),
            }
        },
    )
}

proptest! {
    #[test]
    fn what_is_written_is_read_back(context in "[a-zA-Z0-9][a-zA-Z0-9._-]{0,30}", event in event()) {
        let written = write(&context, Disclosure::All, &event);
        prop_assert_eq!(&read(&context, &written, &event).unwrap(), &event);

        let written = write(&context, Disclosure::Links, &event);
        let mut public = event.clone();
        public.metadata.actor = None;
        public.metadata.custom.clear();
        prop_assert_eq!(read(&context, &written, &event).unwrap(), public);
    }

    /// One reader for all: what it remembers of one record does not reach another.
    #[test]
    fn a_reader_keeps_records_apart(events in vec(event(), 1..20)) {
        let mut reader = RecordReader::new("lending");
        for event in events.iter().chain(&events) {
            let written = write("lending", Disclosure::All, event);
            let headers = written.iter().map(|(name, value)| (*name, Some(value.as_slice())));
            let key = Some(event.stream.key().as_bytes());
            let read = reader.read(key, Some(event.event.as_bytes()), headers).unwrap();
            prop_assert_eq!(&read, event);
        }
    }

    /// Whatever it is given, it answers.
    #[test]
    fn nothing_makes_it_panic(
        event in event(),
        name in 0_usize..20,
        value in option::of(vec(any::<u8>(), 0..40)),
    ) {
        let mut written = write("lending", Disclosure::All, &event);
        let name = written.keys().nth(name % written.len()).copied().unwrap();
        match value {
            Some(value) => written.insert(name, value),
            None => written.remove(name),
        };
        let _ = read("lending", &written, &event);
    }
}

fn example() -> Recorded {
    Recorded {
        position: Position::new(1234),
        stream: StreamId::new("loan", "LN-7").unwrap(),
        version: Version::new(3),
        id: Uuid::from_u128(7),
        event_type: "risk.v2.scored".into(),
        schema_version: 4,
        recorded_at: "2011-10-01T00:38:44.546Z".parse().unwrap(),
        occurred_at: Some("2011-10-01T00:38:44.546Z".parse().unwrap()),
        metadata: Metadata::new(),
        event: Payload::from_json("{}").unwrap(),
    }
}

#[test]
fn a_header_that_is_missing_is_named() {
    let event = example();
    let all = write("lending", Disclosure::Links, &event);
    let required = [
        "ce_id",
        "ce_sequence",
        "ce_source",
        "ce_streamversion",
        "ce_subject",
        "ce_time",
        "ce_type",
    ];
    for name in required {
        let mut written = all.clone();
        written.remove(name);
        let error = read("lending", &written, &event).unwrap_err();
        let RecordError::MissingHeader { header } = error else { panic!("{name}: {error:?}") };
        assert_eq!(header, name);
    }
}

#[test]
fn a_header_that_no_publisher_writes_is_named_with_its_value() {
    let event = example();
    for (name, value) in [
        ("ce_id", "7"),
        ("ce_sequence", "+7"),
        ("ce_sequence", "0"),
        ("ce_sequence", "99999999999999999999"),
        ("ce_streamversion", ""),
        ("ce_streamversion", "-1"),
        ("ce_subject", "LN-8"),
        ("ce_time", "yesterday"),
        ("ce_recordedtime", "2011-10-01"),
        ("ce_type", "lending.loan.scored"),
        ("ce_type", "lending.loan.scored.v"),
        ("ce_type", "lending.loan.scored.v0"),
        ("ce_type", "lending.loan.scored.v+1"),
        ("ce_type", "lending.loan.scored.v4294967296"),
        ("ce_type", "lending.loan..v1"),
        ("ce_type", "lending.member.scored.v1"),
        ("ce_custommetadata", "[]"),
    ] {
        let mut written = write("lending", Disclosure::Links, &event);
        written.insert(name, value.into());
        let error = read("lending", &written, &event).unwrap_err();
        let said = error.to_string();
        let RecordError::InvalidHeader { header, .. } = error else { panic!("{name}: {error:?}") };
        assert_eq!(header, name);
        assert!(said.contains(&format!("{value:?}")), "{said}");
    }
}

#[test]
fn records_of_others_are_refused() {
    let event = example();
    let written = write("lending", Disclosure::Links, &event);
    let error = read("lend", &written, &event).unwrap_err();
    assert!(matches!(error, RecordError::OtherContext { .. }), "{error:?}");
    let said = error.to_string();
    assert!(said.contains("\"/lending/loan\"") && said.contains("\"lend\""), "{said}");

    let headers = || written.iter().map(|(name, value)| (*name, Some(value.as_slice())));
    let mut reader = RecordReader::new("lending");
    let error = reader.read(None, Some(b"{}"), headers()).unwrap_err();
    assert!(matches!(error, RecordError::NoKey), "{error:?}");
    let error = reader.read(Some(b"LN-7"), None, headers()).unwrap_err();
    assert!(matches!(error, RecordError::NoValue), "{error:?}");
    let error = reader.read(Some(b"LN-7"), Some(b"{"), headers()).unwrap_err();
    assert!(matches!(error, RecordError::Value(_)), "{error:?}");

    let mut loud = written.clone();
    loud.insert("ce_source", b"/lending/Loan".to_vec());
    loud.insert("ce_type", b"lending.Loan.scored.v1".to_vec());
    let error = read("lending", &loud, &event).unwrap_err();
    assert!(matches!(error, RecordError::Stream(_)), "{error:?}");
}

#[test]
fn a_record_that_ends_a_transaction_is_told_apart_whatever_else_it_has() {
    let event = example();
    let written = write("lending", Disclosure::Links, &event);
    let ends = [(ENDS_TRANSACTION, Some(b"".as_slice()))];
    let mut reader = RecordReader::new("lending");
    let error = reader.read(Some(b"key"), None, ends).unwrap_err();
    assert!(matches!(error, RecordError::EndsTransaction), "{error:?}");
    let headers = written.iter().map(|(name, value)| (*name, Some(value.as_slice())));
    let error = reader.read(Some(b"LN-7"), Some(b"{}"), headers.chain(ends)).unwrap_err();
    assert!(matches!(error, RecordError::EndsTransaction), "{error:?}");
}

/// As tracing tools do, which put a trace context of their own behind what is there.
#[test]
fn of_a_header_that_is_there_twice_the_last_one_counts() {
    let mut event = example();
    event.metadata.traceparent = Some("first".to_owned());
    let written = write("lending", Disclosure::Links, &event);
    let headers = written.iter().map(|(name, value)| (*name, Some(value.as_slice())));
    let more = [("x-of-others", None), ("traceparent", Some(b"second".as_slice()))];
    let read = RecordReader::new("lending").read(Some(b"LN-7"), Some(b"{}"), headers.chain(more));
    assert_eq!(read.unwrap().metadata.traceparent.as_deref(), Some("second"));
}
