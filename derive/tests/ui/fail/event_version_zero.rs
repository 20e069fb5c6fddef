use annals_eventstore::Event;
use serde::{Deserialize, Serialize};

#[derive(Event, Serialize, Deserialize)]
enum LoanEvent {
    #[event(version = 0)]
    Submitted { amount: i64 },
    #[event(version = -1)]
    Approved,
    #[event(version = 4294967296)]
    Declined,
}

fn main() {}
