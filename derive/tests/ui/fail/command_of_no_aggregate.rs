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

struct Account;

#[derive(Command, Serialize, Clone)]
#[command(aggregate = Account)]
struct Open {
    #[command(id)]
    account: String,
}

fn main() {}
