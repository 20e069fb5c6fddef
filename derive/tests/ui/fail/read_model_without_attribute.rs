use annals_projections::ReadModel;

#[derive(ReadModel, Clone)]
struct LoanOverview {
    #[read_model(key)]
    loan: String,
}

fn main() {}
