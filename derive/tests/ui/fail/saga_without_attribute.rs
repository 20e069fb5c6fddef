use annals_projections::Saga;

#[derive(Saga, Default)]
struct Booking;

fn main() {}
