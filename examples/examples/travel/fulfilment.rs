//! The saga: it reserves a flight, a hotel and a car for a booking and confirms it, or cancels what it has reserved.

use std::time::Duration;

use annals::{
    Apply, Event, Recorded, Saga,
    saga::{Action, Actions, On, Process, Retry, Step},
};
use serde::{Deserialize, Serialize};

use crate::{
    booking::{Booking, BookingEvent},
    kind::Kind,
};

/// How long a booking may take. A service that is gone for longer costs it.
const DEADLINE: Duration = Duration::from_secs(180);
/// How long a call may take, a little longer than whoever makes it waits for an answer.
const TIME_LIMIT: Duration = Duration::from_secs(3);

/// What the saga records itself.
#[derive(Event, Serialize, Deserialize, Clone, Debug, PartialEq)]
pub(crate) enum FulfilmentEvent {
    Begun { destination: String, travellers: u32 },
}

/// What the saga asks of others.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq)]
pub(crate) enum Call {
    Reserve { kind: Kind, destination: String, travellers: u32 },
    Cancel { kind: Kind },
    Confirm,
}

#[derive(Saga, Debug, Default)]
#[saga(category = "fulfilment", event = FulfilmentEvent, call = Call, from(Booking))]
pub(crate) struct Fulfilment {
    destination: String,
    travellers: u32,
}

impl Fulfilment {
    fn reserve(&self, kind: Kind) -> Call {
        Call::Reserve { kind, destination: self.destination.clone(), travellers: self.travellers }
    }
}

impl Apply<FulfilmentEvent> for Fulfilment {
    fn apply(&mut self, event: &FulfilmentEvent) {
        let FulfilmentEvent::Begun { destination, travellers } = event;
        self.destination.clone_from(destination);
        self.travellers = *travellers;
    }
}

/// Short waits at first: a traveller looks at a screen.
const fn attempts(count: u32) -> Retry {
    Retry::attempts(count).waits(Duration::from_millis(100), Duration::from_secs(2))
}

impl Process for Fulfilment {
    fn steps() -> Vec<Step<Self>> {
        let patient = |step: Step<Self>| {
            // What is reserved must not stay so: undoing is tried for as long as it takes.
            step.retry(attempts(6)).retry_undo(attempts(40)).time_limit(TIME_LIMIT)
        };
        vec![
            patient(
                Self::step("flight", |saga| saga.reserve(Kind::Flight))
                    .undo(|_| Call::Cancel { kind: Kind::Flight }),
            ),
            patient(
                Self::step("hotel", |saga| saga.reserve(Kind::Hotel))
                    .undo(|_| Call::Cancel { kind: Kind::Hotel }),
            ),
            patient(
                Self::step("car", |saga| saga.reserve(Kind::Car))
                    .undo(|_| Call::Cancel { kind: Kind::Car }),
            ),
            Self::step("confirm", |_| Call::Confirm).retry(attempts(40)).must_succeed(),
        ]
    }
}

impl On<BookingEvent> for Fulfilment {
    fn on(&self, event: &Recorded<BookingEvent>) -> Actions<Self> {
        match &event.event {
            BookingEvent::Requested { destination, travellers } => vec![
                Action::record(FulfilmentEvent::Begun {
                    destination: destination.clone(),
                    travellers: *travellers,
                }),
                Action::timer("deadline", DEADLINE),
                Action::RunAll,
            ],
            BookingEvent::CancellationRequested => {
                vec![Action::compensate("the traveller cancelled")]
            }
            BookingEvent::Confirmed => vec![],
        }
    }
}

#[cfg(test)]
mod tests {
    use annals::saga::testkit::{Decision::*, GivenSaga};

    use super::*;

    fn destination() -> String {
        "Bergen".to_owned()
    }

    fn reserve(kind: Kind) -> Call {
        Call::Reserve { kind, destination: destination(), travellers: 2 }
    }

    fn begun() -> GivenSaga<Fulfilment> {
        let requested = BookingEvent::Requested { destination: destination(), travellers: 2 };
        GivenSaga::new("7").when_event::<Booking>("7", requested).then([
            Recorded(FulfilmentEvent::Begun { destination: destination(), travellers: 2 }),
            TimerSet("deadline".to_owned(), DEADLINE),
            Called(reserve(Kind::Flight)),
        ])
    }

    #[test]
    fn everything_is_reserved_and_then_confirmed() {
        begun()
            .when_done("flight", ())
            .then([Called(reserve(Kind::Hotel))])
            .when_done("hotel", ())
            .then([Called(reserve(Kind::Car))])
            .when_done("car", ())
            .then([Called(Call::Confirm)])
            // Too late.
            .when_event::<Booking>("7", BookingEvent::CancellationRequested)
            .then([])
            .when_done("confirm", ())
            .then([Completed]);
    }

    #[test]
    fn what_was_reserved_is_cancelled_in_reverse() {
        begun()
            .when_done("flight", ())
            .when_done("hotel", ())
            .when_refused("car", "no car takes more than 5 travellers")
            .then([Compensating, Undoing(Call::Cancel { kind: Kind::Hotel })])
            .when_done("hotel", ())
            .then([Undoing(Call::Cancel { kind: Kind::Flight })])
            .when_done("flight", ())
            .then([Compensated]);
    }

    #[test]
    fn a_traveller_may_cancel_and_time_may_run_out() {
        begun()
            .when_done("flight", ())
            .when_event::<Booking>("7", BookingEvent::CancellationRequested)
            .then([Compensating])
            // The call under way is waited for, and undone, too.
            .when_done("hotel", ())
            .then([Undoing(Call::Cancel { kind: Kind::Hotel })]);
        begun().when_elapsed(DEADLINE).then([Compensating]);
    }
}
