use annals_eventstore::Event;
use serde::{Deserialize, Serialize};

#[derive(Event, Serialize, Deserialize)]
enum LoanEvent {
    #[event(version = "2")]
    Submitted { amount: i64 },
    #[event(version)]
    Approved,
}

fn main() {}
