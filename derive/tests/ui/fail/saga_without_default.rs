use annals_eventstore::{Aggregate, Apply, Event, Recorded};
use annals_projections::Saga;
use annals_projections::saga::{Actions, On, Process, Step};
use serde::{Deserialize, Serialize};

#[derive(Event, Serialize, Deserialize)]
enum TripEvent {
    Requested,
}

#[derive(Aggregate, Default)]
#[aggregate(category = "trip", event = TripEvent)]
struct Trip;

impl Apply<TripEvent> for Trip {
    fn apply(&mut self, _: &TripEvent) {}
}

#[derive(Event, Serialize, Deserialize)]
enum BookingEvent {
    Begun,
}

#[derive(Serialize, Deserialize)]
enum Call {
    Book,
}

#[derive(Saga)]
#[saga(category = "booking", event = BookingEvent, call = Call, from(Trip))]
struct Booking;

impl Apply<BookingEvent> for Booking {
    fn apply(&mut self, _: &BookingEvent) {}
}

impl Process for Booking {
    fn steps() -> Vec<Step<Self>> {
        vec![Self::step("book", |_| Call::Book)]
    }
}

impl On<TripEvent> for Booking {
    fn on(&self, _: &Recorded<TripEvent>) -> Actions<Self> {
        vec![]
    }
}

fn main() {}
