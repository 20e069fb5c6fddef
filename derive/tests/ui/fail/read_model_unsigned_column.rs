use annals_eventstore::{Aggregate, Apply, Event, Recorded};
use annals_projections::{Change, Project, ReadModel};
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

#[derive(ReadModel, Clone)]
#[read_model(table = "loans", from(Loan))]
struct LoanOverview {
    #[read_model(key)]
    loan: String,
    offers: u32,
    amounts: Vec<u64>,
}

impl Project<LoanEvent> for LoanOverview {
    fn project(_: Option<Self>, _: &Recorded<LoanEvent>) -> Change<Self> {
        Change::Keep
    }
}

fn main() {}
