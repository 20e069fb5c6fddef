use annals_eventstore::{Aggregate, Apply, Event};
use annals_projections::Saga;
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

#[derive(Saga, Default)]
#[saga(category = "booking", event = BookingEvent, from(Trip))]
struct Booking;

fn main() {}
