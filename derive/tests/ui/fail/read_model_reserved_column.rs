use annals_projections::ReadModel;

#[derive(ReadModel, Clone)]
#[read_model(table = "loans", from(Loan))]
struct LoanOverview {
    #[read_model(key)]
    loan: String,
    valid_from: i64,
    #[read_model(column = "valid_to")]
    until: i64,
    xmin: i64,
}

fn main() {}
