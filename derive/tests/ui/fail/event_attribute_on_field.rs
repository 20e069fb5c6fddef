use annals_eventstore::Event;
use serde::{Deserialize, Serialize};

#[derive(Event, Serialize, Deserialize)]
enum LoanEvent {
    Submitted {
        #[event(name = "sum")]
        amount: i64,
    },
}

fn main() {}
