use annals_projections::ReadModel;

#[derive(ReadModel, Clone)]
#[read_model(table = "loans", from(Loan))]
struct LoanOverview<'a> {
    #[read_model(key)]
    loan: &'a str,
}

fn main() {}
