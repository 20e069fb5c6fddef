use annals_eventstore::Aggregate;

#[derive(Aggregate)]
#[aggregate(category = "loan", event = LoanEvent)]
union Loan {
    amount: i64,
}

fn main() {}
