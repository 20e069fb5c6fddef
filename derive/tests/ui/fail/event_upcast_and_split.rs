use annals_eventstore::Event;
use serde::{Deserialize, Serialize};

#[derive(Deserialize)]
struct SubmittedV1;

#[derive(Event, Serialize, Deserialize)]
enum LoanEvent {
    #[event(version = 2, upcast_from = SubmittedV1, split_from = SubmittedV1)]
    Submitted { amount: i64 },
}

fn main() {}
