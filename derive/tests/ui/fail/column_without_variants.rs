use annals_projections::Column;

#[derive(Column, Debug)]
enum Status {}

fn main() {}
