use annals_eventstore::Aggregate;

#[derive(Aggregate, Default)]
struct Loan {
    amount: i64,
}

fn main() {}
