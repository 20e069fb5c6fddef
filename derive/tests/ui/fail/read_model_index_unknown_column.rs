use annals_projections::ReadModel;

#[derive(ReadModel, Clone)]
#[read_model(table = "loans", from(Loan))]
#[read_model(index(amuont, loan), index(status))]
struct LoanOverview {
    #[read_model(key)]
    loan: String,
    amount: i64,
    #[read_model(column = "loan_status")]
    status: String,
}

fn main() {}
