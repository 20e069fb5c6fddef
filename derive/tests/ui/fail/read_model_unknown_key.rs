use annals_projections::ReadModel;

#[derive(ReadModel, Clone)]
#[read_model(tabel = "loans", from(Loan), histroy)]
struct LoanOverview {
    #[read_model(primary_key)]
    loan: String,
    #[read_model(rename = "sum")]
    amount: i64,
    #[read_model(column)]
    note: String,
    #[read_model(json, json)]
    terms: Vec<String>,
}

fn main() {}
