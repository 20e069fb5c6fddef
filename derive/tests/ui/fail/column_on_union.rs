use annals_projections::Column;

#[derive(Column)]
union Amount {
    cents: i64,
    euros: f64,
}

fn main() {}
