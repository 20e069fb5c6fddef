//! Structs and enums, with and without an error of their own.
#![deny(missing_docs, clippy::all, unused_qualifications, warnings)]

use std::convert::Infallible;

use annals_eventstore::{Aggregate, Apply, Event};
use serde::{Deserialize, Serialize};

/// Events.
#[derive(Event, Debug, Serialize, Deserialize)]
pub enum LoanEvent {
    /// Approved.
    Approved,
}

/// Errors.
pub mod errors {
    /// An error.
    #[derive(Debug, thiserror::Error)]
    #[error("refused")]
    pub struct LoanError;
}

/// An aggregate.
#[derive(Aggregate, Debug, Default)]
#[aggregate(category = "loan_2", event = LoanEvent, error = errors::LoanError)]
pub struct Loan {
    approved: bool,
}

impl Apply<LoanEvent> for Loan {
    fn apply(&mut self, event: &LoanEvent) {
        match event {
            LoanEvent::Approved => self.approved = true,
        }
    }
}

#[derive(Aggregate, Default)]
#[aggregate(category = "status")]
#[aggregate(event = LoanEvent)]
enum Status {
    #[default]
    Open,
    Done,
}

impl Apply<LoanEvent> for Status {
    fn apply(&mut self, _: &LoanEvent) {
        *self = Status::Done;
    }
}

fn has<A: Aggregate<Event = LoanEvent, Error = E>, E>() -> &'static str {
    A::CATEGORY
}

fn main() {
    assert_eq!(has::<Loan, errors::LoanError>(), "loan_2");
    assert_eq!(has::<Status, Infallible>(), "status");
    let mut loan = Loan::default();
    loan.apply(&LoanEvent::Approved);
    assert!(loan.approved);
    assert!(matches!(Status::default(), Status::Open));
}
