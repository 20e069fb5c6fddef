use annals_eventstore::{Aggregate, Apply, Command, Event};
use serde::{Deserialize, Serialize};

#[derive(Event, Serialize, Deserialize)]
enum LoanEvent {
    Approved,
}

#[derive(Aggregate, Default)]
#[aggregate(category = "loan", event = LoanEvent)]
struct Loan;

impl Apply<LoanEvent> for Loan {
    fn apply(&mut self, _: &LoanEvent) {}
}

#[derive(Serialize, Clone)]
struct Submit {
    loan: String,
}

fn key<C: Command>(command: C) -> String {
    command.stream_key()
}

fn main() {
    key(Submit { loan: String::new() });
}
