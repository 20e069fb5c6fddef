use annals_eventstore::Command;
use serde::Serialize;

#[derive(Command, Serialize, Clone)]
#[command(aggregate = Loan)]
enum Manage {}

fn main() {}
