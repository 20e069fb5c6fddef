use annals_eventstore::Event;
use serde::{Deserialize, Serialize};

#[derive(Event, Serialize, Deserialize)]
enum LoanEvent<'a> {
    Submitted { borrower: &'a str },
}

fn main() {}
