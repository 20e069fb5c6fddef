use annals_eventstore::Aggregate;

#[derive(Aggregate, Default)]
#[aggregate(category = "loan", event = LoanEvent)]
struct Loan {
    #[aggregate(error = LoanError)]
    amount: i64,
}

fn main() {}
