use annals_projections::ReadModel;

#[derive(ReadModel, Clone)]
#[read_model(table = "loans", from(Loan), index(bank, loan_status), index(bank_loan, status))]
struct LoanOverview {
    #[read_model(key)]
    loan: String,
    bank: String,
    bank_loan: String,
    loan_status: String,
    status: String,
}

fn main() {}
