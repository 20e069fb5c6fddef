use annals_projections::Saga;

#[derive(Saga)]
#[saga(category = "booking", event = BookingEvent, call = Call, from(Trip))]
union Booking {
    city: u32,
}

fn main() {}
