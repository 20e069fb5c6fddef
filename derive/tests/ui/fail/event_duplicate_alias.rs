use annals_eventstore::Event;
use serde::{Deserialize, Serialize};

#[derive(Event, Serialize, Deserialize)]
enum LoanEvent {
    #[event(alias = "made", alias = "made")]
    Submitted { amount: i64 },
    #[event(alias = "approved")]
    Approved,
    #[event(alias = "submitted")]
    Declined,
}

fn main() {}
