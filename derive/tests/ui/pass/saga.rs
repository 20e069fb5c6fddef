use annals_eventstore::{Aggregate, Apply, Event, Recorded};
use annals_projections::Saga;
use annals_projections::saga::{Action, Actions, Answer, Attempt, On, Perform, Process, Retry, Step};
use annals_projections::Cause;
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

#[derive(Saga, Default)]
#[saga(category = "booking", event = BookingEvent, call = Call, reply = String, from(Trip))]
struct Booking {
    reference: Option<String>,
}

impl Apply<BookingEvent> for Booking {
    fn apply(&mut self, _: &BookingEvent) {}
}

impl Process for Booking {
    fn steps() -> Vec<Step<Self>> {
        vec![Self::step("book", |_| Call::Book).undo(|_| Call::Book).retry(Retry::attempts(3))]
    }

    fn answered(&self, _step: &str, reply: &String) -> Actions<Self> {
        assert!(self.reference.as_ref() != Some(reply));
        vec![Action::record(BookingEvent::Begun)]
    }
}

impl On<TripEvent> for Booking {
    fn on(&self, _: &Recorded<TripEvent>) -> Actions<Self> {
        vec![]
    }
}

struct Services;

impl Perform<Booking> for Services {
    async fn perform(&self, call: &Call, attempt: &Attempt) -> Result<Answer<String>, Cause> {
        let Call::Book = call;
        Ok(Answer::Done(attempt.id.to_string()))
    }
}

// Several sources, no reply, and an enum.
#[derive(Event, Serialize, Deserialize)]
enum PaymentEvent {
    Received,
}

#[derive(Aggregate, Default)]
#[aggregate(category = "payment", event = PaymentEvent)]
struct Payment;

impl Apply<PaymentEvent> for Payment {
    fn apply(&mut self, _: &PaymentEvent) {}
}

#[derive(Saga, Default)]
#[saga(category = "reminder", event = BookingEvent, call = Call, from(Trip, Payment))]
enum Reminder {
    #[default]
    Waiting,
}

impl Apply<BookingEvent> for Reminder {
    fn apply(&mut self, _: &BookingEvent) {}
}

impl Process for Reminder {
    fn steps() -> Vec<Step<Self>> {
        vec![]
    }
}

impl On<TripEvent> for Reminder {
    fn on(&self, _: &Recorded<TripEvent>) -> Actions<Self> {
        vec![Action::timer("pay", std::time::Duration::from_secs(3600))]
    }
}

impl On<PaymentEvent> for Reminder {
    fn key(event: &Recorded<PaymentEvent>) -> Option<String> {
        Some(event.stream.key().to_owned())
    }

    fn on(&self, _: &Recorded<PaymentEvent>) -> Actions<Self> {
        vec![Action::Complete]
    }
}

fn main() {
    assert_eq!(Booking::sources()[0].category(), "trip");
    assert_eq!(Reminder::sources().len(), 2);
    assert_eq!(<Booking as Saga>::CATEGORY, "booking");
}
