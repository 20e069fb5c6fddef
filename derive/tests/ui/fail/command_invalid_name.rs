use annals_eventstore::Command;
use serde::Serialize;

#[derive(Command, Serialize, Clone)]
#[command(aggregate = Loan, name = "submit loan")]
struct Submit {
    #[command(id)]
    loan: String,
}

fn main() {}
