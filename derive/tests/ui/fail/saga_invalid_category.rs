use annals_projections::Saga;

#[derive(Saga, Default)]
#[saga(category = "travel.booking", event = BookingEvent, call = Call, from(Trip))]
struct Booking;

fn main() {}
