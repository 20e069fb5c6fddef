use annals_eventstore::Event;
use serde::{Deserialize, Serialize};

#[derive(Event, Serialize, Deserialize)]
enum LoanEvent {
    Submitted { amount: i64 },
    #[serde(skip)]
    Skipped,
    #[serde(skip_serializing)]
    NotWritten,
    #[serde(skip_deserializing)]
    NotRead,
    #[serde(untagged)]
    Untagged(String),
}

#[derive(Event, Serialize, Deserialize)]
enum PaymentEvent {
    Paid { amount: i64 },
    #[serde(rename = "anything", other)]
    Other,
}

fn main() {}
