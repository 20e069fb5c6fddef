use annals_projections::ReadModel;

#[derive(ReadModel, Clone)]
#[read_model(table = "loans", from(Loan))]
struct LoanOverview {
    #[read_model(key)]
    loan: Option<String>,
    #[read_model(key)]
    bank: std::option::Option<String>,
}

fn main() {}
