use annals_projections::ReadModel;

#[derive(ReadModel, Clone)]
#[read_model(table = "loans", from(Loan), index(amount, terms))]
struct LoanOverview {
    #[read_model(key)]
    loan: String,
    amount: i64,
    #[read_model(json)]
    terms: Vec<String>,
    #[read_model(json, index)]
    parties: Vec<String>,
}

fn main() {}
