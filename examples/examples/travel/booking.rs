//! A booking, as its service decides on it: requested, perhaps to be cancelled, confirmed in the end.
//!
//! Whether everything that it needs could be reserved is the saga's business: see `fulfilment.rs`.

use annals::{Aggregate, Apply, Command, Event, Handle};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

#[derive(Event, Serialize, Deserialize, Clone, Debug, PartialEq)]
pub(crate) enum BookingEvent {
    Requested { destination: String, travellers: u32 },
    CancellationRequested,
    Confirmed,
}

#[derive(Aggregate, Clone, Debug, Default)]
#[aggregate(category = "booking", event = BookingEvent, error = BookingError)]
pub(crate) struct Booking {
    state: State,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum State {
    #[default]
    Unknown,
    Requested,
    CancellationRequested,
    Confirmed,
}

impl Apply<BookingEvent> for Booking {
    fn apply(&mut self, event: &BookingEvent) {
        self.state = match event {
            BookingEvent::Requested { .. } => State::Requested,
            BookingEvent::CancellationRequested => State::CancellationRequested,
            BookingEvent::Confirmed => State::Confirmed,
        };
    }
}

#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum BookingError {
    #[error("there is no such booking")]
    Unknown,
    #[error("there is such a booking already")]
    Exists,
    #[error("the booking is confirmed; it is too late to cancel it")]
    Confirmed,
}

#[derive(Command, Serialize, Deserialize, Clone, Debug, JsonSchema)]
#[command(aggregate = Booking, starts)]
pub(crate) struct RequestBooking {
    #[command(id)]
    pub(crate) booking: Uuid,
    pub(crate) destination: String,
    pub(crate) travellers: u32,
}

impl Handle<RequestBooking> for Booking {
    fn handle(&self, command: RequestBooking) -> Result<Vec<BookingEvent>, BookingError> {
        let RequestBooking { destination, travellers, .. } = command;
        match self.state {
            State::Unknown => Ok(vec![BookingEvent::Requested { destination, travellers }]),
            _ => Err(BookingError::Exists),
        }
    }
}

#[derive(Command, Serialize, Deserialize, Clone, Debug, JsonSchema)]
#[command(aggregate = Booking)]
pub(crate) struct CancelBooking {
    #[command(id)]
    pub(crate) booking: Uuid,
}

impl Handle<CancelBooking> for Booking {
    fn handle(&self, _: CancelBooking) -> Result<Vec<BookingEvent>, BookingError> {
        match self.state {
            State::Unknown => Err(BookingError::Unknown),
            State::Requested => Ok(vec![BookingEvent::CancellationRequested]),
            State::CancellationRequested => Ok(vec![]),
            State::Confirmed => Err(BookingError::Confirmed),
        }
    }
}

/// The saga has everything that the booking needs.
#[derive(Command, Serialize, Clone, Debug)]
#[command(aggregate = Booking)]
pub(crate) struct ConfirmBooking {
    #[command(id)]
    pub(crate) booking: Uuid,
}

impl Handle<ConfirmBooking> for Booking {
    fn handle(&self, _: ConfirmBooking) -> Result<Vec<BookingEvent>, BookingError> {
        match self.state {
            State::Unknown => Err(BookingError::Unknown),
            State::Confirmed => Ok(vec![]),
            // Who cancels at the last moment is too late: the saga is past the point of no return.
            State::Requested | State::CancellationRequested => Ok(vec![BookingEvent::Confirmed]),
        }
    }
}

#[cfg(test)]
mod tests {
    use annals::testkit::Given;

    use super::*;

    const BOOKING: Uuid = Uuid::nil();

    fn requested() -> BookingEvent {
        BookingEvent::Requested { destination: "Bergen".to_owned(), travellers: 2 }
    }

    #[test]
    fn it_can_be_cancelled_until_it_is_confirmed() {
        let cancel = CancelBooking { booking: BOOKING };
        Given::<Booking>(vec![requested()])
            .when(cancel.clone())
            .then(vec![BookingEvent::CancellationRequested]);
        Given::<Booking>(vec![requested(), BookingEvent::Confirmed])
            .when(cancel)
            .then_rejected(BookingError::Confirmed);
    }

    #[test]
    fn it_is_confirmed_once_also_where_somebody_cancels_at_the_last_moment() {
        let confirm = ConfirmBooking { booking: BOOKING };
        Given::<Booking>(vec![requested(), BookingEvent::CancellationRequested])
            .when(confirm.clone())
            .then(vec![BookingEvent::Confirmed]);
        Given::<Booking>(vec![requested(), BookingEvent::Confirmed]).when(confirm).then(vec![]);
    }
}
