use annals_eventstore::Event;
use serde::Deserialize;

#[derive(Event, Deserialize)]
enum LoanEvent {
    Submitted { amount: i64 },
}

fn main() {}
