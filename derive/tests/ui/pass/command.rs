//! Structs with named and with tuple fields, and enums; names; ids of any type with Display.
#![deny(missing_docs, clippy::all, unused_qualifications, warnings)]
#![allow(dead_code, non_camel_case_types)]

use std::{borrow::Cow, fmt};

use annals_eventstore::{Aggregate, Apply, Command, Event};
use serde::{Deserialize, Serialize};

#[derive(Event, Serialize, Deserialize)]
enum LoanEvent {
    Approved,
}

mod domain {
    #[derive(annals_eventstore::Aggregate, Default)]
    #[aggregate(category = "loan", event = super::LoanEvent)]
    pub(crate) struct Loan;
}

impl Apply<LoanEvent> for domain::Loan {
    fn apply(&mut self, _: &LoanEvent) {}
}

#[derive(Serialize, Clone)]
struct LoanId(u32);

impl fmt::Display for LoanId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "L{:03}", self.0)
    }
}

/// Named fields.
#[derive(Command, Serialize, Clone)]
#[command(aggregate = domain::Loan)]
struct Submit {
    amount: i64,
    #[command(id)]
    r#type: LoanId,
}

#[derive(Command, Serialize, Clone)]
#[command(aggregate = domain::Loan, name = "loan.approve", starts)]
struct Approve(i64, #[command(id)] &'static str);

#[derive(Command, Serialize, Clone)]
#[command(aggregate = domain::Loan)]
enum Manage {
    #[command(starts)]
    Open { #[command(id)] id: u64, note: String },
    Close(i64, #[command(id)] Cow<'static, str>),
    r#move { #[command(id)] id: String },
}

#[derive(Command, Serialize, Clone)]
#[command(aggregate = domain::Loan)]
struct r#try {
    #[command(id)]
    id: char,
}

fn aggregate_of<C: Command>(_: &C) -> &'static str {
    C::Aggregate::CATEGORY
}

fn main() {
    let submit = Submit { amount: 1, r#type: LoanId(7) };
    assert_eq!((Submit::NAME, submit.stream_key().as_str()), ("Submit", "L007"));
    assert_eq!(aggregate_of(&submit), "loan");
    let approve = Approve(1, "ada");
    assert_eq!((Approve::NAME, approve.stream_key().as_str()), ("loan.approve", "ada"));
    assert_eq!(Manage::NAME, "Manage");
    assert_eq!(Manage::Open { id: 1, note: String::new() }.stream_key(), "1");
    assert_eq!(Manage::Close(2, "two".into()).stream_key(), "two");
    assert_eq!(Manage::r#move { id: "three".into() }.stream_key(), "three");
    assert_eq!((r#try::NAME, r#try { id: 'x' }.stream_key().as_str()), ("try", "x"));
}
