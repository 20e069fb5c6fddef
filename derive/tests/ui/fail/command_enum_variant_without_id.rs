use annals_eventstore::Command;
use serde::Serialize;

#[derive(Command, Serialize, Clone)]
#[command(aggregate = Loan)]
enum Manage {
    Submit {
        #[command(id)]
        loan: String,
    },
    Approve {
        loan: String,
    },
    Close,
}

fn main() {}
