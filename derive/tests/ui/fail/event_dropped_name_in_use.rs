use annals_eventstore::Event;
use serde::{Deserialize, Serialize};

#[derive(Deserialize)]
struct Moved;

#[derive(Event, Serialize, Deserialize)]
#[event(dropped("submitted", "made"), split("moved", Moved), dropped("moved", "not a name"))]
enum LoanEvent {
    #[event(alias = "made")]
    Submitted { amount: i64 },
}

impl From<Moved> for Vec<LoanEvent> {
    fn from(_: Moved) -> Self {
        vec![]
    }
}

fn main() {}
