use annals_eventstore::Event;
use serde::{Deserialize, Serialize};

#[derive(Event, Serialize, Deserialize)]
#[event(prefix = "a_prefix_that_is_rather_long_a_prefix_that_is_rather_long_a_prefix_that_is_rather_long_a_prefix_that_is_rather_long_")]
enum LoanEvent {
    Submitted { amount: i64 },
    ApprovedByHand,
}

fn main() {}
