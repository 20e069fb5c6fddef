use annals_projections::Column;

#[derive(Debug)]
struct Terms;

#[derive(Column, Debug)]
struct LoanTerms(Terms);

fn main() {}
