use annals_eventstore::Command;
use serde::Serialize;

#[derive(Command, Serialize, Clone)]
#[command(aggregate = Loan)]
struct Submit<'a> {
    #[command(id)]
    loan: &'a str,
}

fn main() {}
