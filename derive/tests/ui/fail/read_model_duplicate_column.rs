use annals_projections::ReadModel;

#[derive(ReadModel, Clone)]
#[read_model(table = "loans", from(Loan))]
struct LoanOverview {
    #[read_model(key)]
    loan: String,
    amount: i64,
    #[read_model(column = "amount")]
    total: i64,
}

fn main() {}
