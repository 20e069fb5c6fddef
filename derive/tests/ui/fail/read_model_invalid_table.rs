use annals_projections::ReadModel;

#[derive(ReadModel, Clone)]
#[read_model(table = "Loan Overview", from(Loan))]
struct LoanOverview {
    #[read_model(key)]
    loan: String,
}

#[derive(ReadModel, Clone)]
#[read_model(table = "reporting.loans", from(Loan))]
struct Qualified {
    #[read_model(key)]
    loan: String,
}

#[derive(ReadModel, Clone)]
#[read_model(table = "an_overview_of_all_the_loans_of_all_banks", from(Loan))]
struct Long {
    #[read_model(key)]
    loan: String,
}

fn main() {}
