use annals_eventstore::Aggregate;

#[derive(Aggregate, Default)]
#[aggregate(category = "loan", events = LoanEvent, errors = LoanError)]
struct Loan;

fn main() {}
