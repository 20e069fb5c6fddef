use annals_projections::ReadModel;

#[derive(ReadModel, Clone)]
#[read_model(table = "loans", from(Loan))]
struct LoanOverview {
    #[read_model(key)]
    a: String,
    #[read_model(key)]
    b: String,
    #[read_model(key)]
    c: String,
    #[read_model(key)]
    d: String,
    #[read_model(key)]
    e: String,
}

fn main() {}
