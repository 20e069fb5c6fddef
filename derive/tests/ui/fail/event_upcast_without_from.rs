use annals_eventstore::Event;
use serde::{Deserialize, Serialize};

#[derive(Deserialize)]
struct SubmittedV1;

#[derive(Deserialize)]
struct SubmittedV2;

#[derive(Deserialize)]
struct MovedV1;

#[derive(Event, Serialize, Deserialize)]
#[event(split("moved", MovedV1))]
enum LoanEvent {
    #[event(version = 3, upcast_from = [SubmittedV1, SubmittedV2])]
    Submitted { amount: i64 },
}

fn main() {}
