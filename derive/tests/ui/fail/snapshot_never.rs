use annals_eventstore::{Aggregate, Apply, Event};
use serde::{Deserialize, Serialize};

#[derive(Event, Serialize, Deserialize)]
enum LoanEvent {
    Approved,
}

#[derive(Aggregate, Default, Serialize, Deserialize)]
#[aggregate(category = "loan", event = LoanEvent)]
#[snapshot(keep = 2)]
struct Loan;

impl Apply<LoanEvent> for Loan {
    fn apply(&mut self, _: &LoanEvent) {}
}

fn main() {}
