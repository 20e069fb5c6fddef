use annals_projections::Column;

#[derive(Column, Debug)]
enum Status {
    OnHold,
    #[column(name = "on_hold")]
    Waiting,
    #[column(name = "")]
    Gone,
    #[column(name = "a\0b")]
    Other,
}

fn main() {}
