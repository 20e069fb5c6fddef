use annals_eventstore::Command;
use serde::Serialize;

#[derive(Command, Serialize, Clone)]
#[command(aggregate = Loan)]
struct Submit {
    loan: Option<String>,
    amount: i64,
}

#[derive(Command, Serialize, Clone)]
#[command(aggregate = Loan)]
struct Approve(String);

#[derive(Command, Serialize, Clone)]
#[command(aggregate = Loan)]
struct Close;

fn main() {}
