use annals_projections::Column;

#[derive(Column, Debug)]
struct Money {
    amount: i64,
    currency: String,
}

#[derive(Column, Debug)]
struct Pair(i64, i64);

#[derive(Column, Debug)]
struct Nothing;

fn main() {}
