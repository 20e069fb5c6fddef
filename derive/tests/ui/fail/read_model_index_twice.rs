use annals_projections::ReadModel;

#[derive(ReadModel, Clone)]
#[read_model(table = "loans", from(Loan), index(amount), index(status, amount), index(status, amount))]
struct LoanOverview {
    #[read_model(key)]
    loan: String,
    #[read_model(index)]
    amount: i64,
    status: String,
}

#[derive(ReadModel, Clone)]
#[read_model(table = "loans", from(Loan), index(amount, amount))]
struct TheSameColumn {
    #[read_model(key)]
    loan: String,
    amount: i64,
}

fn main() {}
