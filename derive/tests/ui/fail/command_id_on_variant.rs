use annals_eventstore::Command;
use serde::Serialize;

#[derive(Command, Serialize, Clone)]
#[command(aggregate = Loan)]
enum Manage {
    #[command(id)]
    Approve(String),
}

fn main() {}
