use annals_eventstore::Aggregate;

#[derive(Aggregate, Default)]
#[aggregate(category = "loan", event = LoanEvent)]
struct Loan<'a> {
    borrower: &'a str,
}

fn main() {}
