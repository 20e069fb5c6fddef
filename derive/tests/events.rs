//! How derived events are stored and read back.
#![deny(missing_docs, clippy::all, unused_qualifications)]
#![allow(non_camel_case_types, clippy::unwrap_used)]

use std::{collections::BTreeMap, fmt::Debug};

use annals_eventstore::{DecodeError, Decoded, Event, Payload};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Money {
    cents: i64,
}

#[derive(Event, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
enum LoanEvent {
    Approved,
    Closed {},
    Archived(),
    Paid(Money),
    Noted(Option<String>),
    Rated(i64, String),
    Submitted {
        amount: i64,
        by: BTreeMap<String, Vec<bool>>,
    },
    #[serde(rename = "SomethingElse", rename_all = "camelCase")]
    TermsAgreed {
        monthly_rate: i64,
        #[serde(rename = "currency_code")]
        currency: String,
        #[serde(default = "thirty")]
        due_days: u32,
        #[serde(skip_serializing_if = "Option::is_none")]
        note: Option<String>,
        #[serde(with = "as_text")]
        limit: i64,
        #[serde(flatten)]
        price: Money,
        #[serde(skip)]
        cached: u8,
    },
    #[event(name = "loan.granted", alias = "granted", alias = "accepted", version = 3)]
    Granted {
        by: String,
    },
    r#type {
        r#for: String,
    },
}

fn thirty() -> u32 {
    30
}

mod as_text {
    use super::*;

    pub(crate) fn serialize<S: Serializer>(number: &i64, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(number)
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<i64, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

fn decode(name: &str, version: u32, json: &'static str) -> Result<LoanEvent, DecodeError> {
    let decoded = LoanEvent::decode(name, version, &Payload::from_json(json).unwrap())?;
    Ok(decoded.one().unwrap())
}

/// Holds that the event is stored as this, and that this reads back as the event.
#[track_caller]
fn stored<E: Event + Debug + PartialEq>(event: E, name: &str, json: &str) {
    let kind = event.event_type();
    assert_eq!(kind.name, name);
    let payload = event.encode().unwrap();
    assert_eq!(std::str::from_utf8(payload.as_bytes()).unwrap(), json);
    assert_eq!(E::decode(name, kind.version, &payload).unwrap(), Decoded::One(event));
}

#[test]
fn every_shape_is_stored_as_its_fields() {
    stored(LoanEvent::Approved, "approved", "{}");
    stored(LoanEvent::Closed {}, "closed", "{}");
    stored(LoanEvent::Archived(), "archived", "[]");
    stored(LoanEvent::Paid(Money { cents: 5 }), "paid", r#"{"cents":5}"#);
    stored(LoanEvent::Noted(Some("late".into())), "noted", r#""late""#);
    stored(LoanEvent::Noted(None), "noted", "null");
    stored(LoanEvent::Rated(-1, "\"é\n".into()), "rated", r#"[-1,"\"é\n"]"#);
    stored(
        LoanEvent::Submitted {
            amount: i64::MAX,
            by: BTreeMap::from([("ada".into(), vec![true, false]), (String::new(), vec![])]),
        },
        "submitted",
        r#"{"amount":9223372036854775807,"by":{"":[],"ada":[true,false]}}"#,
    );
    stored(LoanEvent::Granted { by: "ada".into() }, "loan.granted", r#"{"by":"ada"}"#);
    stored(LoanEvent::r#type { r#for: "x".into() }, "type", r#"{"for":"x"}"#);
}

#[test]
fn serde_attributes_on_fields_keep_their_meaning() {
    let event = |note: Option<&str>| LoanEvent::TermsAgreed {
        monthly_rate: 7,
        currency: "EUR".into(),
        due_days: 30,
        note: note.map(Into::into),
        limit: 12,
        price: Money { cents: 5 },
        cached: 0,
    };
    stored(
        event(None),
        "terms_agreed",
        r#"{"monthlyRate":7,"currency_code":"EUR","dueDays":30,"limit":"12","cents":5}"#,
    );
    stored(
        event(Some("x")),
        "terms_agreed",
        r#"{"monthlyRate":7,"currency_code":"EUR","dueDays":30,"note":"x","limit":"12","cents":5}"#,
    );
    let without_default =
        r#"{"limit":"12","cents":5,"unknown":[{}],"currency_code":"EUR","monthlyRate":7}"#;
    assert_eq!(decode("terms_agreed", 1, without_default).unwrap(), event(None));
}

#[test]
fn serdes_names_of_variants_are_not_the_stored_ones() {
    assert!(matches!(decode("APPROVED", 1, "{}"), Err(DecodeError::UnknownType)));
    assert!(matches!(decode("SomethingElse", 1, "{}"), Err(DecodeError::UnknownType)));
}

#[test]
fn earlier_names_and_versions_decode() {
    let granted = LoanEvent::Granted { by: "ada".into() };
    for name in ["loan.granted", "granted", "accepted"] {
        for version in 1..=3 {
            assert_eq!(decode(name, version, r#"{"by":"ada"}"#).unwrap(), granted);
        }
    }
}

#[test]
fn a_unit_variant_reads_what_was_once_a_struct() {
    assert_eq!(decode("approved", 1, r#"{"by":"ada"}"#).unwrap(), LoanEvent::Approved);
}

#[test]
fn an_unknown_type_is_an_error() {
    for name in ["", "Approved", "loan_approved", "approved "] {
        let error = decode(name, 1, "{}").unwrap_err();
        assert!(matches!(error, DecodeError::UnknownType), "{name}: {error}");
    }
}

#[test]
fn a_newer_version_is_an_error_that_names_the_supported_one() {
    for (name, supported) in [("approved", 1), ("granted", 3)] {
        let error = decode(name, supported + 1, r#"{"by":"ada"}"#).unwrap_err();
        assert!(
            matches!(error, DecodeError::NewerVersion { supported: s } if s == supported),
            "{error}"
        );
    }
}

#[test]
fn a_payload_that_does_not_fit_is_an_error() {
    for (name, json) in [
        ("submitted", "{}"),
        ("submitted", r#"{"amount":"1","by":{}}"#),
        ("submitted", "null"),
        ("paid", "[]"),
        ("rated", "[1]"),
        ("rated", r#"[1,"a",2]"#),
        ("terms_agreed", r#"{"monthlyRate":7}"#),
    ] {
        let error = decode(name, 1, json).unwrap_err();
        assert!(matches!(error, DecodeError::Payload(_)), "{name} {json}");
    }
}

#[test]
fn prefixes_stand_before_default_names_only() {
    #[derive(Event, Debug, PartialEq, Serialize, Deserialize)]
    #[event(prefix = "account.")]
    enum AccountEvent {
        MoneyPaid(i64),
        #[event(name = "closed", alias = "shut")]
        Closed,
    }
    stored(AccountEvent::MoneyPaid(1), "account.money_paid", "1");
    stored(AccountEvent::Closed, "closed", "{}");
    assert!(AccountEvent::TYPES[1].is_named("shut"));
    assert!(!AccountEvent::TYPES[1].is_named("account.shut"));
}

#[test]
fn the_parameters_of_a_generic_event_are_stored_like_any_field() {
    #[derive(Event, Debug, PartialEq, Serialize, Deserialize)]
    enum Changed<T> {
        Set(T),
        Cleared { was: Option<T> },
    }
    stored(Changed::Set(Money { cents: 1 }), "set", r#"{"cents":1}"#);
    stored(Changed::Cleared { was: Some(1_u8) }, "cleared", r#"{"was":1}"#);
}
