use annals_projections::ReadModel;

#[derive(ReadModel, Clone)]
#[read_model(table = "loans", from(Loan))]
struct LoanOverview {
    #[read_model(key, index)]
    loan: String,
}

#[derive(ReadModel, Clone)]
#[read_model(table = "loans", from(Loan), index(bank, number))]
struct TwoColumns {
    #[read_model(key)]
    bank: String,
    amount: i64,
    #[read_model(key)]
    number: i64,
}

fn main() {}
