use annals_eventstore::Aggregate;

#[derive(Aggregate, Default)]
#[aggregate(category, event = "LoanEvent", error)]
struct Loan;

#[derive(Aggregate, Default)]
#[aggregate(category = loan, event = LoanEvent, error = )]
struct Other;

fn main() {}
