use annals_eventstore::Event;
use serde::{Deserialize, Serialize};

#[derive(Event, Serialize, Deserialize)]
#[event(prefx = "loan_")]
enum LoanEvent {
    #[event(nam = "made", version = 2, 7)]
    Submitted { amount: i64 },
    #[event(prefix = "x")]
    Approved,
    #[event]
    Declined,
    #[event = "closed"]
    Closed,
}

fn main() {}
