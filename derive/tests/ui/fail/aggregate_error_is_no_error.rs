use annals_eventstore::{Aggregate, Apply, Event};
use serde::{Deserialize, Serialize};

#[derive(Event, Serialize, Deserialize)]
enum LoanEvent {
    Approved,
}

struct LoanError;

#[derive(Aggregate, Default)]
#[aggregate(category = "loan", event = LoanEvent, error = LoanError)]
struct Loan;

impl Apply<LoanEvent> for Loan {
    fn apply(&mut self, _: &LoanEvent) {}
}


fn main() {}
