use annals_eventstore::Command;
use serde::Serialize;

#[derive(Command, Serialize, Clone)]
struct Submit {
    #[command(id)]
    loan: String,
}

fn main() {}
