//! Every shape of a variant, every attribute.
#![deny(missing_docs, clippy::all, unused_qualifications, warnings)]
#![allow(non_camel_case_types)]

use annals_eventstore::{Event, EventType};
use serde::{Deserialize, Serialize};

/// Events.
#[derive(Event, Debug, Serialize, Deserialize)]
#[event(prefix = "loan_")]
pub enum LoanEvent {
    /// A unit variant.
    Approved,
    /// A newtype variant.
    Noted(String),
    /// A tuple variant.
    #[event(version = 3)]
    Rated(i64, String),
    /// A struct variant, with braces and without fields too.
    Submitted {
        /// A field.
        amount: i64,
    },
    /// Empty braces.
    Closed {},
    /// Empty parentheses.
    Archived(),
    /// Renamed twice.
    #[event(name = "granted", alias = "accepted", alias = "loan.accepted")]
    #[event(version = 2)]
    Granted,
    /// An acronym.
    KYCPassed,
    /// A raw identifier.
    r#type,
}

const fn plain(name: &'static str) -> EventType {
    EventType { name, version: 1, aliases: &[] }
}

fn main() {
    let expected = [
        plain("loan_approved"),
        plain("loan_noted"),
        EventType { version: 3, ..plain("loan_rated") },
        plain("loan_submitted"),
        plain("loan_closed"),
        plain("loan_archived"),
        EventType { name: "granted", version: 2, aliases: &["accepted", "loan.accepted"] },
        plain("loan_kyc_passed"),
        plain("loan_type"),
    ];
    assert_eq!(LoanEvent::TYPES, expected);
    let events = [
        LoanEvent::Approved,
        LoanEvent::Noted(String::new()),
        LoanEvent::Rated(1, String::new()),
        LoanEvent::Submitted { amount: 1 },
        LoanEvent::Closed {},
        LoanEvent::Archived(),
        LoanEvent::Granted,
        LoanEvent::KYCPassed,
        LoanEvent::r#type,
    ];
    for (index, event) in events.iter().enumerate() {
        assert_eq!(event.type_index(), index);
    }
}
