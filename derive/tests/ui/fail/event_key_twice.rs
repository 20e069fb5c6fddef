use annals_eventstore::Event;
use serde::{Deserialize, Serialize};

#[derive(Event, Serialize, Deserialize)]
enum LoanEvent {
    #[event(name = "made", version = 1)]
    #[event(name = "submitted", version = 2)]
    Submitted { amount: i64 },
}

fn main() {}
