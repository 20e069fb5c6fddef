use annals_eventstore::Event;
use serde::{Deserialize, Serialize};

#[derive(Event, Serialize, Deserialize)]
#[serde(tag = "type", content = "data", rename_all = "snake_case")]
enum LoanEvent {
    Submitted { amount: i64 },
}

#[derive(Event, Serialize, Deserialize)]
#[serde(untagged)]
enum PaymentEvent {
    Paid { amount: i64 },
}

#[derive(Clone, Serialize, Deserialize)]
struct Stored;

#[derive(Event, Clone, Serialize, Deserialize)]
#[serde(from = "Stored")]
#[serde(into = "Stored")]
enum ConvertedEvent {
    Converted,
}

impl From<Stored> for ConvertedEvent {
    fn from(_: Stored) -> Self {
        Self::Converted
    }
}

impl From<ConvertedEvent> for Stored {
    fn from(_: ConvertedEvent) -> Self {
        Self
    }
}

fn main() {}
