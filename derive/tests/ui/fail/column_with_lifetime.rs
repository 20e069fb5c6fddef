use annals_projections::Column;

#[derive(Column, Debug)]
struct Name<'a>(&'a str);

fn main() {}
