//! A trip for the tests of what is told: a saga reserves a flight, and then a hotel that is full, so it cancels the flight.

use annals::{
    Aggregate, Apply, Cause, Command, Event, EventStore, Handle, Recorded, Saga,
    saga::{Action, Actions, Answer, Attempt, On, Perform, Process, Retry, Step},
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::time::Duration;

#[derive(Event, Serialize, Deserialize)]
pub(crate) enum TripEvent {
    Requested,
}

#[derive(Aggregate, Default)]
#[aggregate(category = "trip", event = TripEvent)]
pub(crate) struct Trip;

impl Apply<TripEvent> for Trip {
    fn apply(&mut self, _: &TripEvent) {}
}

#[derive(Command, Serialize, Deserialize, Clone, JsonSchema)]
#[command(aggregate = Trip)]
pub(crate) struct RequestTrip {
    #[command(id)]
    pub(crate) trip: String,
}

impl Handle<RequestTrip> for Trip {
    fn handle(&self, _: RequestTrip) -> Result<Vec<TripEvent>, Self::Error> {
        Ok(vec![TripEvent::Requested])
    }
}

#[derive(Event, Serialize, Deserialize)]
pub(crate) enum SeatEvent {
    Reserved,
    Cancelled,
}

/// A seat on a flight, or a room.
#[derive(Aggregate, Default)]
#[aggregate(category = "seat", event = SeatEvent, error = Full)]
pub(crate) struct Seat;

impl Apply<SeatEvent> for Seat {
    fn apply(&mut self, _: &SeatEvent) {}
}

#[derive(Debug, thiserror::Error)]
#[error("the hotel is full")]
pub(crate) struct Full;

#[derive(Command, Serialize, Deserialize, Clone)]
#[command(aggregate = Seat)]
pub(crate) enum Call {
    Reserve {
        #[command(id)]
        seat: String,
    },
    Cancel {
        #[command(id)]
        seat: String,
    },
}

impl Handle<Call> for Seat {
    fn handle(&self, call: Call) -> Result<Vec<SeatEvent>, Full> {
        match call {
            Call::Reserve { seat } if seat == "hotel" => Err(Full),
            Call::Reserve { .. } => Ok(vec![SeatEvent::Reserved]),
            Call::Cancel { .. } => Ok(vec![SeatEvent::Cancelled]),
        }
    }
}

#[derive(Event, Serialize, Deserialize)]
pub(crate) enum BookingEvent {
    Reminded,
}

#[derive(Saga, Default)]
#[saga(category = "booking", event = BookingEvent, call = Call, from(Trip))]
pub(crate) struct Booking;

impl Apply<BookingEvent> for Booking {
    fn apply(&mut self, _: &BookingEvent) {}
}

impl Process for Booking {
    fn steps() -> Vec<Step<Self>> {
        let retry = Retry::attempts(5).waits(Duration::from_millis(20), Duration::from_millis(100));
        let flight = Self::step("flight", |_| Call::Reserve { seat: "flight".to_owned() })
            .undo(|_| Call::Cancel { seat: "flight".to_owned() })
            .retry(retry)
            .retry_undo(retry);
        let hotel =
            Self::step("hotel", |_| Call::Reserve { seat: "hotel".to_owned() }).retry(retry);
        vec![flight, hotel]
    }

    fn elapsed(&self, _: &str) -> Actions<Self> {
        vec![Action::record(BookingEvent::Reminded), Action::RunAll]
    }
}

impl On<TripEvent> for Booking {
    /// It begins with a timer, so that one goes off.
    fn on(&self, _: &Recorded<TripEvent>) -> Actions<Self> {
        vec![Action::timer("soon", Duration::from_millis(10))]
    }
}

/// Makes the calls of a booking: commands of the own store.
pub(crate) struct Services(pub(crate) EventStore);

impl Perform<Booking> for Services {
    async fn perform(&self, call: &Call, attempt: &Attempt) -> Result<Answer<()>, Cause> {
        attempt.execute(&self.0, call.clone(), |_| ()).await
    }
}

/// Waits until a booking has come to its end.
pub(crate) async fn is_compensated(store: &EventStore, trip: &str) {
    let look = async {
        loop {
            let saga = store.load::<annals::saga::Instance<Booking>>(trip).await.unwrap();
            match saga.map(|saga| saga.state.status()) {
                Some(annals::saga::SagaStatus::Compensated) => return,
                _ => tokio::time::sleep(Duration::from_millis(20)).await,
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(60), look).await.expect("it is compensated");
}
