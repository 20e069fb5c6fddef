use annals_eventstore::Event;
use serde::{Deserialize, Serialize};

struct SubmittedV1;

impl From<SubmittedV1> for LoanEvent {
    fn from(_: SubmittedV1) -> Self {
        LoanEvent::Submitted { amount: 0 }
    }
}

#[derive(Event, Serialize, Deserialize)]
enum LoanEvent {
    #[event(version = 2, upcast_from = SubmittedV1)]
    Submitted { amount: i64 },
}

fn main() {}
