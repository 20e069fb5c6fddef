use annals_eventstore::Command;
use serde::Serialize;

#[derive(Command, Serialize, Clone)]
#[command(aggregate = Loan)]
struct Submit {
    #[command(id)]
    bank: String,
    #[command(id)]
    loan: String,
    amount: i64,
}

#[derive(Command, Serialize, Clone)]
#[command(aggregate = Loan)]
struct Approve(#[command(id)] String, #[command(id)] String);

fn main() {}
