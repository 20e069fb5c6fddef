use annals_projections::Saga;

#[derive(Saga, Default)]
#[saga(category = "booking", event = BookingEvent, call = Call, from())]
struct Booking;

fn main() {}
