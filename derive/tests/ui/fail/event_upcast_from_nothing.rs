use annals_eventstore::Event;
use serde::{Deserialize, Serialize};

#[derive(Event, Serialize, Deserialize)]
#[event(dropped(), split("moved"))]
enum LoanEvent {
    #[event(version = 2, upcast_from = [])]
    Empty,
    #[event(version = 2, upcast_from = "SubmittedV1")]
    Text,
    #[event(version = 2, upcast_from(SubmittedV1))]
    Parentheses,
}

#[derive(Event, Serialize, Deserialize)]
#[event(dropped = "clicked", dropped(clicked), split(MovedV1))]
enum OtherEvent {
    Submitted,
}

fn main() {}
