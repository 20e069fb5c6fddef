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
struct LoanId(u64);

#[derive(Command, Serialize, Clone)]
#[command(aggregate = Loan)]
struct Submit {
    amount: i64,
    #[command(id)]
    loan: LoanId,
}

#[derive(Command, Serialize, Clone)]
#[command(aggregate = Loan)]
enum Manage {
    Approve(#[command(id)] LoanId),
}

fn main() {}
