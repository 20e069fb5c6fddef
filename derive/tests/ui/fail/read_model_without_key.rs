use annals_projections::ReadModel;

#[derive(ReadModel, Clone)]
#[read_model(table = "loans", from(Loan))]
struct LoanOverview {
    loan: String,
    amount: i64,
}

#[derive(ReadModel, Clone)]
#[read_model(table = "nothing", from(Loan))]
struct Nothing {}

fn main() {}
