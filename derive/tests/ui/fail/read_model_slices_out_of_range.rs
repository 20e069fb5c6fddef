use annals_projections::ReadModel;

#[derive(ReadModel, Clone)]
#[read_model(table = "loans", from(Loan), slices = 0)]
struct None {
    #[read_model(key)]
    loan: String,
}

#[derive(ReadModel, Clone)]
#[read_model(table = "loans", from(Loan), slices = 257)]
struct Many {
    #[read_model(key)]
    loan: String,
}

#[derive(ReadModel, Clone)]
#[read_model(table = "loans", from(Loan), slices = 100000)]
struct TooMany {
    #[read_model(key)]
    loan: String,
}

fn main() {}
