use annals_eventstore::Aggregate;

#[derive(Aggregate, Default)]
#[aggregate(category = "Loan-Application", event = LoanEvent)]
struct Loan;

#[derive(Aggregate, Default)]
#[aggregate(category = "", event = LoanEvent)]
struct Nothing;

#[derive(Aggregate, Default)]
#[aggregate(category = "a_category_of_sixty_five_bytes_a_category_of_sixty_five_bytes_abc", event = LoanEvent)]
struct Long;

fn main() {}
