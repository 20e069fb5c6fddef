use annals_projections::ReadModel;

#[derive(ReadModel, Clone)]
#[read_model(table = "loans", from(Loan), index, index(), index("amount"), index = amount)]
struct LoanOverview {
    #[read_model(key)]
    loan: String,
    #[read_model(index(amount))]
    amount: i64,
}

fn main() {}
