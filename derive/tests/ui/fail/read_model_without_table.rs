use annals_projections::ReadModel;

#[derive(ReadModel, Clone)]
#[read_model(from(Loan))]
struct LoanOverview {
    #[read_model(key)]
    loan: String,
}

fn main() {}
