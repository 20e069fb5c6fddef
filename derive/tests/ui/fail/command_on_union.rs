use annals_eventstore::Command;

#[derive(Command)]
#[command(aggregate = Loan)]
union Submit {
    loan: i64,
}

fn main() {}
