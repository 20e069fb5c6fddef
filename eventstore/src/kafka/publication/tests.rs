use chrono::DateTime;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::*;
use crate::{
    event::{Decoded, Event, EventType, Metadata, Payload, RetiredType, Upcast, read},
    ids::{Position, Version},
    kafka::{Builder, Publisher},
};

// By hand: the derive macro names the crate, and a unit test has two of that name.

#[derive(Serialize, Deserialize)]
enum LoanEvent {
    Submitted { cents: i64, ssn: String },
    Scored,
}

#[derive(Deserialize)]
struct SubmittedV1 {
    euros: i64,
}

/// What was one event once is two today.
#[derive(Deserialize)]
struct Settled {
    twice: bool,
}

const fn kind(name: &'static str, version: u32) -> EventType {
    EventType { name, version, aliases: &[] }
}

impl Event for LoanEvent {
    const TYPES: &'static [EventType] = &[kind("submitted", 2), kind("scored", 1)];
    const RETIRED: &'static [RetiredType] = &[RetiredType { name: "settled", version: 1 }];

    fn type_index(&self) -> usize {
        usize::from(matches!(self, Self::Scored))
    }

    fn upcast(index: usize, _: u32, payload: &Payload) -> Upcast<Self> {
        if index != 0 {
            return Ok(None);
        }
        let SubmittedV1 { euros } = read(payload)?;
        Ok(Some(Decoded::One(Self::Submitted { cents: 100 * euros, ssn: "unknown".into() })))
    }

    fn retired(name: &str, _: u32, payload: &Payload) -> Upcast<Self> {
        if name != "settled" {
            return Ok(None);
        }
        let Settled { twice } = read(payload)?;
        let submitted = || Self::Submitted { cents: 1, ssn: String::new() };
        let second = if twice { submitted() } else { Self::Scored };
        Ok(Some(Decoded::Many(vec![submitted(), second])))
    }
}

#[derive(Serialize, Deserialize)]
enum PublicLoan {
    Other,
    Requested { cents: i64, score: Unwritable },
}

impl Event for PublicLoan {
    const TYPES: &'static [EventType] = &[kind("other", 1), kind("loan.requested", 7)];

    fn type_index(&self) -> usize {
        usize::from(matches!(self, Self::Requested { .. }))
    }
}

/// What some values of cannot be written as JSON.
#[derive(Deserialize)]
struct Unwritable(i64);

impl Serialize for Unwritable {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.0 {
            13 => Err(serde::ser::Error::custom("13 is not told")),
            number => serializer.serialize_i64(number),
        }
    }
}

fn stored(event_type: &str, schema_version: u32, json: &'static str) -> Recorded {
    Recorded {
        position: Position::new(12),
        stream: StreamId::new("loan", "LN-7").unwrap(),
        version: Version::new(3),
        id: Uuid::from_u128(7),
        event_type: event_type.into(),
        schema_version,
        recorded_at: DateTime::UNIX_EPOCH,
        occurred_at: None,
        metadata: Metadata::new().actor("ada"),
        event: Payload::from_json(json).unwrap(),
    }
}

fn builder() -> Builder {
    Publisher::builder("localhost:9092", "lending")
}

fn mapped() -> Publication {
    let map = |loan: &Recorded<LoanEvent>| match &loan.event {
        LoanEvent::Submitted { cents, .. } => {
            Some(PublicLoan::Requested { cents: *cents, score: Unwritable(*cents) })
        }
        LoanEvent::Scored if loan.metadata.actor.is_none() => Some(PublicLoan::Other),
        LoanEvent::Scored => None,
    };
    builder().map("loan", map).publication
}

#[test]
fn everything_is_published_as_it_is_unless_something_is_said() {
    let event = stored("anything", 4, "[1.50]");
    for publication in [Publication::default(), mapped()] {
        let mut other = event.clone();
        other.stream = StreamId::new("member", 1).unwrap();
        let published = publication.publish(&other).unwrap().unwrap();
        assert!(matches!(published, Cow::Borrowed(_)), "it is copied");
        assert_eq!(*published, other);
    }
}

#[test]
fn a_public_event_has_its_own_type_and_the_place_of_the_private_one() {
    for (version, json) in [(2, r#"{"cents":200,"ssn":"x"}"#), (1, r#"{"euros":2}"#)] {
        let private = stored("submitted", version, json);
        let publication = mapped();
        let public = publication.publish(&private).unwrap().unwrap();
        let expected = Recorded {
            event_type: "loan.requested".into(),
            schema_version: 7,
            event: Payload::from_json(r#"{"cents":200,"score":200}"#).unwrap(),
            ..private.clone()
        };
        assert_eq!(*public, expected);
    }
    assert_eq!(mapped().publish(&stored("scored", 1, "{}")).unwrap(), None);
}

#[test]
fn of_a_split_event_one_may_be_public() {
    let one = mapped().publish(&stored("settled", 1, r#"{"twice":false}"#)).unwrap().is_some();
    assert!(one);
    let error = mapped().publish(&stored("settled", 1, r#"{"twice":true}"#)).unwrap_err();
    assert!(crate::error::chain(&error).contains("read as several events"), "{error:?}");
}

#[test]
fn what_has_no_public_form_is_an_error_that_names_the_event() {
    for (kind, version, json, reason) in [
        ("unheard", 1, "{}", "no variant has this type name"),
        ("submitted", 3, "{}", "up to version 2"),
        ("submitted", 2, r#"{"cents":"many"}"#, "does not fit"),
        ("submitted", 2, r#"{"cents":13,"ssn":"x"}"#, "13 is not told"),
    ] {
        let error = mapped().publish(&stored(kind, version, json)).unwrap_err();
        let said = crate::error::chain(&error);
        let named = format!(
            "publish event 3 of stream loan-LN-7, at position 12, of type {kind:?} version {version}"
        );
        assert!(said.contains(&named) && said.contains(reason), "{said}");
    }
}

#[test]
fn an_event_passes_all_filters_or_none_counts() {
    let only = |kind: &'static str| move |event: &Recorded| &*event.event_type != kind;
    let publication = builder().filter(only("a")).filter(only("b")).publication;
    let passes = |kind| publication.publish(&stored(kind, 1, "{}")).unwrap().is_some();
    assert_eq!(["a", "b", "c"].map(passes), [false, false, true]);
}

#[test]
fn a_route_leads_to_a_topic_or_leaves_it() {
    let route = |stream: &StreamId| match stream.key() {
        "plain" => None,
        key => Some(key.replace('+', ".").replace('~', "lending.publisher.progress")),
    };
    let mut router = Router::new("lending", &builder().route(route).publication);
    let mut topic = |key: &str| {
        let mut event = stored("a", 1, "{}");
        event.stream = StreamId::new("loan", key).unwrap();
        router.topic(&event)
    };
    for _ in 0..2 {
        assert_eq!(&*topic("plain").unwrap(), "lending.loan.events.v1");
        assert_eq!(&*topic("eu+north").unwrap(), "eu.north");
    }
    for (key, reason) in [("a b", "\"a b\""), ("~", "progress")] {
        let said = crate::error::chain(&topic(key).unwrap_err());
        assert!(said.contains("publish event 3 of stream loan-"), "{said}");
        assert!(said.contains(reason) && said.contains("route"), "{said}");
    }
}

#[test]
fn topics_are_known_beforehand_where_no_event_decides() {
    let all = || ["a", "b"].map(str::to_owned).to_vec();
    let known = |builder: Builder| builder.publication.with_known_topics(all());
    assert_eq!(known(builder()), all());
    assert_eq!(known(builder().only_categories(["b", "c"])), ["b"]);
    assert_eq!(known(builder().filter(|_| true)), [""; 0]);
    assert_eq!(known(builder().route(|_| None)), [""; 0]);
}
