use annals_projections::ReadModel;

#[derive(ReadModel, Clone)]
#[read_model(table = "loans", from(Loan))]
struct LoanOverview {
    #[read_model(key)]
    loanId: String,
    #[read_model(column = "Amount")]
    amount: i64,
    #[read_model(column = "")]
    note: String,
    ångström: f64,
}

fn main() {}
