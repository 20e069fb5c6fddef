use annals_eventstore::Event;
use serde::Serialize;

#[derive(Event, Serialize)]
enum LoanEvent {
    Submitted { amount: i64 },
}

fn main() {}
