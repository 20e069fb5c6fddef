use annals_eventstore::Command;
use serde::Serialize;

#[derive(Command, Serialize, Clone)]
#[command(agregate = Loan)]
struct Submit {
    #[command(key)]
    loan: String,
    #[command(id = "bank")]
    bank: String,
}

fn main() {}
