use annals_eventstore::Command;
use serde::Serialize;

#[derive(Command, Serialize, Clone)]
#[command(id, aggregate = Loan)]
struct Approve(String);

fn main() {}
