use annals_projections::Saga;

#[derive(Saga, Default)]
#[saga(category = "booking", event = BookingEvent, calls = Call, from(Trip))]
struct Booking;

fn main() {}
