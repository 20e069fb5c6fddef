use annals_eventstore::Event;
use serde::{Deserialize, Serialize};

#[derive(Deserialize)]
struct V1;

#[derive(Event, Serialize, Deserialize)]
enum LoanEvent {
    #[event(version = 3, upcast_from = V1)]
    TooFew,
    #[event(version = 2, upcast_from = [V1, V1])]
    TooMany,
    #[event(upcast_from = [V1])]
    WithoutVersion,
    #[event(version = 4, split_from = [V1, V1])]
    Split,
}

fn main() {}
