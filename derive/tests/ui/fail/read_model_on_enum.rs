use annals_projections::ReadModel;

#[derive(ReadModel, Clone)]
#[read_model(table = "loans", from(Loan))]
enum LoanOverview {
    Open { loan: String },
}

fn main() {}
