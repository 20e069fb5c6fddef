use annals_eventstore::Event;
use serde::{Deserialize, Serialize};

#[derive(Event, Serialize, Deserialize)]
enum LoanEvent {
    #[event(name = "")]
    Submitted { amount: i64 },
    #[event(name = "loan approved", alias = "loan/approved")]
    Approved,
    Überwiesen,
}

#[derive(Event, Serialize, Deserialize)]
#[event(prefix = "loan:")]
enum PrefixedEvent {
    #[event(name = "approved")]
    Approved,
}

fn main() {}
