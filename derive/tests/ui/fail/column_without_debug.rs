use annals_projections::Column;

#[derive(Column)]
enum Status {
    Open,
}

#[derive(Column)]
struct LoanId(i64);

fn main() {}
