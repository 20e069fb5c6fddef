use annals_projections::ReadModel;

#[derive(ReadModel, Clone)]
#[read_model(table = "loans")]
struct LoanOverview {
    #[read_model(key)]
    loan: String,
}

#[derive(ReadModel, Clone)]
#[read_model(table = "others", from())]
struct Others {
    #[read_model(key)]
    loan: String,
}

#[derive(ReadModel, Clone)]
#[read_model(table = "named", from = Loan)]
struct Named {
    #[read_model(key)]
    loan: String,
}

fn main() {}
