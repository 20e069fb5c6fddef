use annals_projections::ReadModel;

#[derive(ReadModel, Clone)]
#[read_model(table = "loans", from(Loan), version = 0)]
struct LoanOverview {
    #[read_model(key)]
    loan: String,
}

#[derive(ReadModel, Clone)]
#[read_model(table = "loans", from(Loan), version = "2")]
struct Quoted {
    #[read_model(key)]
    loan: String,
}

fn main() {}
