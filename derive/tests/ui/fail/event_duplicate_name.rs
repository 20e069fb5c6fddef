use annals_eventstore::Event;
use serde::{Deserialize, Serialize};

#[derive(Event, Serialize, Deserialize)]
enum LoanEvent {
    Submitted { amount: i64 },
    #[event(name = "submitted")]
    Resubmitted { amount: i64 },
    HTTPCalled,
    HttpCalled,
}

fn main() {}
