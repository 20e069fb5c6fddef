use annals_projections::Column;

#[derive(Column, Debug)]
enum Status {
    Open,
    Declined { reason: String },
    Approved(#[column(name = "at")] i64),
}

fn main() {}
