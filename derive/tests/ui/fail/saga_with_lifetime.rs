use annals_projections::Saga;

#[derive(Saga)]
#[saga(category = "booking", event = BookingEvent, call = Call, from(Trip))]
struct Booking<'a> {
    city: &'a str,
}

fn main() {}
