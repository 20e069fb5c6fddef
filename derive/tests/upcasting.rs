//! How events are read that were stored in another shape, under another name, or as one of several.
#![deny(missing_docs, clippy::all, unused_qualifications)]
#![allow(clippy::unwrap_used)]

use annals_eventstore::{DecodeError, Decoded, Event, Payload, testkit::stored};
use serde::{Deserialize, Serialize};

#[derive(Event, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[event(dropped("clicked", "hovered"), dropped("scrolled"), split("moved", MovedV1, MovedV2))]
enum LoanEvent {
    /// Two upcasters, an alias, and a field that was renamed since.
    #[event(version = 3, alias = "applied", upcast_from = [SubmittedV1, SubmittedV2])]
    Submitted {
        cents: i64,
        #[serde(alias = "money")]
        currency: String,
    },
    /// A newtype, and a later variant.
    #[event(version = 2, upcast_from = PaidV1)]
    Paid(Money),
    /// Compatible versions: no upcaster.
    #[event(version = 4)]
    Noted {
        text: Option<String>,
    },
    /// Its first version was several events, or none.
    #[event(version = 2, split_from = [DecidedV1])]
    Approved,
    Declined {
        reason: String,
    },
    /// Two versions that looked alike.
    #[event(version = 3, upcast_from = [RatedV1, RatedV1])]
    Rated(u8, String),
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Money {
    cents: i64,
}

#[derive(Deserialize)]
struct SubmittedV1 {
    euros: i64,
}

#[derive(Deserialize)]
struct SubmittedV2 {
    cents: i64,
}

impl From<SubmittedV1> for SubmittedV2 {
    fn from(old: SubmittedV1) -> Self {
        Self { cents: old.euros * 100 }
    }
}

impl From<SubmittedV2> for LoanEvent {
    fn from(old: SubmittedV2) -> Self {
        Self::Submitted { cents: old.cents, currency: "EUR".into() }
    }
}

#[derive(Deserialize)]
struct PaidV1(i64);

impl From<PaidV1> for LoanEvent {
    fn from(PaidV1(cents): PaidV1) -> Self {
        // What it becomes is the upcaster's to say, another variant too.
        if cents < 0 {
            Self::Noted { text: Some(format!("paid back {}", -cents)) }
        } else {
            Self::Paid(Money { cents })
        }
    }
}

#[derive(Deserialize)]
struct DecidedV1 {
    reasons: Vec<String>,
}

impl From<DecidedV1> for Vec<LoanEvent> {
    fn from(old: DecidedV1) -> Self {
        old.reasons.into_iter().map(|reason| LoanEvent::Declined { reason }).collect()
    }
}

#[derive(Deserialize)]
struct RatedV1(u8);

impl From<RatedV1> for LoanEvent {
    fn from(RatedV1(rate): RatedV1) -> Self {
        Self::Rated(rate, String::new())
    }
}

#[derive(Deserialize)]
struct MovedV1(i64);

#[derive(Deserialize)]
struct MovedV2 {
    cents: i64,
    parts: usize,
}

impl From<MovedV1> for MovedV2 {
    fn from(MovedV1(cents): MovedV1) -> Self {
        Self { cents, parts: 2 }
    }
}

impl From<MovedV2> for Vec<LoanEvent> {
    fn from(MovedV2 { cents, parts }: MovedV2) -> Self {
        vec![LoanEvent::Paid(Money { cents }); parts]
    }
}

#[track_caller]
fn reads(name: &str, version: u32, json: &str, expected: &[LoanEvent]) {
    assert_eq!(stored::<LoanEvent>(name, version, json), expected, "{name} {version}");
}

fn decode(name: &str, version: u32, json: &'static str) -> Result<Decoded<LoanEvent>, DecodeError> {
    LoanEvent::decode(name, version, &Payload::from_json(json).unwrap())
}

fn submitted(cents: i64, currency: &str) -> LoanEvent {
    LoanEvent::Submitted { cents, currency: currency.into() }
}

#[test]
fn each_version_is_brought_up_from_its_own_shape() {
    for name in ["submitted", "applied"] {
        reads(name, 1, r#"{"euros":2}"#, &[submitted(200, "EUR")]);
        reads(name, 2, r#"{"cents":3}"#, &[submitted(3, "EUR")]);
        reads(name, 3, r#"{"cents":4,"currency":"SEK"}"#, &[submitted(4, "SEK")]);
        // A field that was renamed by an alias of serde's.
        reads(name, 3, r#"{"cents":4,"money":"SEK"}"#, &[submitted(4, "SEK")]);
    }
    reads("paid", 1, "7", &[LoanEvent::Paid(Money { cents: 7 })]);
    reads("paid", 2, r#"{"cents":7}"#, &[LoanEvent::Paid(Money { cents: 7 })]);
    reads("paid", 1, "-7", &[LoanEvent::Noted { text: Some("paid back 7".into()) }]);
    for version in [1, 2] {
        reads("rated", version, "5", &[LoanEvent::Rated(5, String::new())]);
    }
    reads("rated", 3, r#"[5,"x"]"#, &[LoanEvent::Rated(5, "x".into())]);
}

#[test]
fn the_shape_of_one_version_is_not_taken_for_another() {
    for (version, json) in [(1, r#"{"cents":3}"#), (2, r#"{"euros":3}"#), (3, r#"{"cents":3}"#)] {
        let error = decode("submitted", version, json).unwrap_err();
        assert!(matches!(error, DecodeError::Payload(_)), "{version} {json}: {error}");
    }
}

#[test]
fn without_upcasters_every_version_is_read_alike() {
    for version in 1..=4 {
        reads("noted", version, "{}", &[LoanEvent::Noted { text: None }]);
        let text = Some("x".to_owned());
        reads("noted", version, r#"{"text":"x"}"#, &[LoanEvent::Noted { text }]);
    }
}

#[test]
fn one_stored_event_becomes_several_or_none() {
    let declined = |reason: &str| LoanEvent::Declined { reason: reason.into() };
    reads("approved", 1, r#"{"reasons":["a","b"]}"#, &[declined("a"), declined("b")]);
    reads("approved", 1, r#"{"reasons":[]}"#, &[]);
    reads("approved", 2, "{}", &[LoanEvent::Approved]);
    let paid = LoanEvent::Paid(Money { cents: 5 });
    reads("moved", 1, "5", &[paid.clone(), paid.clone()]);
    reads("moved", 2, r#"{"cents":5,"parts":3}"#, &[paid.clone(), paid.clone(), paid]);
    reads("moved", 2, r#"{"cents":5,"parts":0}"#, &[]);
}

#[test]
fn dropped_types_are_read_as_nothing_whatever_they_hold() {
    for name in ["clicked", "hovered", "scrolled"] {
        for version in [1, 7] {
            reads(name, version, r#"{"what":["ever"]}"#, &[]);
        }
    }
}

#[test]
fn the_usual_event_takes_no_allocation() {
    assert!(matches!(decode("approved", 2, "{}").unwrap(), Decoded::One(_)));
    assert!(matches!(decode("submitted", 1, r#"{"euros":2}"#).unwrap(), Decoded::One(_)));
}

#[test]
fn what_is_not_known_is_an_error_still() {
    assert!(matches!(decode("click", 1, "{}"), Err(DecodeError::UnknownType)));
    for (name, supported) in [("submitted", 3), ("moved", 2), ("approved", 2)] {
        let error = decode(name, supported + 1, "{}").unwrap_err();
        assert!(matches!(error, DecodeError::NewerVersion { supported: s } if s == supported));
    }
    assert!(matches!(decode("moved", 1, "{}"), Err(DecodeError::Payload(_))));
    assert!(matches!(decode("moved", 0, "5"), Err(DecodeError::NewerVersion { .. })));
}

#[test]
fn retired_types_are_listed() {
    let retired: Vec<_> = LoanEvent::RETIRED.iter().map(|kind| (kind.name, kind.version)).collect();
    let any = u32::MAX;
    assert_eq!(retired, [("clicked", any), ("hovered", any), ("scrolled", any), ("moved", 2)]);
}
