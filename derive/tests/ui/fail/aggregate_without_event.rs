use annals_eventstore::Aggregate;

#[derive(Aggregate, Default)]
#[aggregate(category = "loan")]
struct Loan {
    amount: i64,
}

fn main() {}
