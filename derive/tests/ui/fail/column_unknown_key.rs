use annals_projections::Column;

#[derive(Column, Debug)]
#[column(rename_all = "UPPERCASE")]
enum Status {
    #[column(rename = "open")]
    Open,
    #[column(name)]
    Closed,
    #[column]
    Gone,
}

#[derive(Column, Debug)]
#[column(name = "loan")]
struct LoanId(#[column(name = "id")] i64);

fn main() {}
