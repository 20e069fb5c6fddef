use annals_eventstore::{Aggregate, Apply, Command, Event, Handle};
use serde::{Deserialize, Serialize};

#[derive(Event, Serialize, Deserialize)]
enum LoanEvent {
    Approved,
}

#[derive(Aggregate, Default)]
#[aggregate(category = "loan", event = LoanEvent)]
struct Loan;

impl Apply<LoanEvent> for Loan {
    fn apply(&mut self, _: &LoanEvent) {}
}

#[derive(Command, Serialize, Clone)]
#[command(aggregate = Loan)]
struct Submit {
    #[command(id)]
    loan: String,
}

fn execute<C: Command>(_: C)
where
    C::Aggregate: Handle<C>,
{
}

fn main() {
    execute(Submit { loan: String::new() });
}
