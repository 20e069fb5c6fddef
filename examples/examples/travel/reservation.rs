//! What the three services keep: reservations, each known by the id of the call that asked for it.
//!
//! The id makes a call that comes again the same reservation. It also settles the other race: a cancellation that
//! arrives before the reservation it cancels is noted, and what comes under that id later is refused. Without that,
//! a request that was held up somewhere would leave a reservation that nobody pays for.

use annals::{Aggregate, Apply, Command, Event, Handle};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::kind::Kind;

#[derive(Event, Serialize, Deserialize, Clone, Debug, PartialEq)]
pub(crate) enum ReservationEvent {
    Reserved {
        kind: Kind,
        booking: Uuid,
        destination: String,
        travellers: u32,
    },
    Cancelled,
    /// It was cancelled before it was made, and is never to be made.
    Forestalled {
        booking: Uuid,
    },
}

#[derive(Aggregate, Clone, Debug, Default)]
#[aggregate(category = "reservation", event = ReservationEvent, error = Refusal)]
pub(crate) struct Reservation {
    state: State,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum State {
    #[default]
    Unknown,
    Active,
    Cancelled,
}

impl Apply<ReservationEvent> for Reservation {
    fn apply(&mut self, event: &ReservationEvent) {
        self.state = match event {
            ReservationEvent::Reserved { .. } => State::Active,
            ReservationEvent::Cancelled | ReservationEvent::Forestalled { .. } => State::Cancelled,
        };
    }
}

/// Why a service refuses. None of it changes when it is asked again.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Refusal {
    #[error("no {kind} takes more than {} travellers", kind.most_travellers())]
    TooMany { kind: Kind },
    #[error("it was cancelled before")]
    Cancelled,
}

#[derive(Command, Serialize, Deserialize, Clone, Debug, JsonSchema)]
#[command(aggregate = Reservation, starts)]
pub(crate) struct Reserve {
    #[command(id)]
    pub(crate) reservation: Uuid,
    pub(crate) kind: Kind,
    pub(crate) booking: Uuid,
    pub(crate) destination: String,
    pub(crate) travellers: u32,
}

impl Handle<Reserve> for Reservation {
    fn handle(&self, command: Reserve) -> Result<Vec<ReservationEvent>, Refusal> {
        let Reserve { kind, booking, destination, travellers, .. } = command;
        match self.state {
            State::Unknown if travellers > kind.most_travellers() => Err(Refusal::TooMany { kind }),
            State::Unknown => {
                Ok(vec![ReservationEvent::Reserved { kind, booking, destination, travellers }])
            }
            State::Active => Ok(vec![]),
            State::Cancelled => Err(Refusal::Cancelled),
        }
    }
}

#[derive(Command, Serialize, Deserialize, Clone, Debug, JsonSchema)]
#[command(aggregate = Reservation)]
pub(crate) struct Cancel {
    #[command(id)]
    pub(crate) reservation: Uuid,
    pub(crate) booking: Uuid,
}

impl Handle<Cancel> for Reservation {
    fn handle(&self, command: Cancel) -> Result<Vec<ReservationEvent>, Refusal> {
        Ok(match self.state {
            State::Unknown => vec![ReservationEvent::Forestalled { booking: command.booking }],
            State::Active => vec![ReservationEvent::Cancelled],
            State::Cancelled => vec![],
        })
    }
}

#[cfg(test)]
mod tests {
    use annals::testkit::Given;

    use super::*;

    fn reserve(kind: Kind, travellers: u32) -> Reserve {
        let (reservation, booking) = (Uuid::nil(), Uuid::nil());
        Reserve { reservation, kind, booking, destination: "Bergen".to_owned(), travellers }
    }

    fn reserved() -> ReservationEvent {
        ReservationEvent::Reserved {
            kind: Kind::Hotel,
            booking: Uuid::nil(),
            destination: "Bergen".to_owned(),
            travellers: 2,
        }
    }

    const CANCEL: Cancel = Cancel { reservation: Uuid::nil(), booking: Uuid::nil() };

    #[test]
    fn it_is_made_once_and_cancelled_once() {
        let given = |events: &[ReservationEvent]| Given::<Reservation>(events.to_vec());
        given(&[]).when(reserve(Kind::Hotel, 2)).then(vec![reserved()]);
        given(&[reserved()]).when(reserve(Kind::Hotel, 2)).then(vec![]);
        given(&[reserved()]).when(CANCEL).then(vec![ReservationEvent::Cancelled]);
        given(&[reserved(), ReservationEvent::Cancelled]).when(CANCEL).then(vec![]);
    }

    #[test]
    fn a_cancellation_that_comes_first_is_remembered() {
        let forestalled = ReservationEvent::Forestalled { booking: Uuid::nil() };
        Given::<Reservation>(vec![]).when(CANCEL).then(vec![forestalled.clone()]);
        Given::<Reservation>(vec![forestalled])
            .when(reserve(Kind::Hotel, 2))
            .then_rejected(Refusal::Cancelled);
    }

    #[test]
    fn large_parties_are_refused() {
        for kind in Kind::ALL {
            Given::<Reservation>(vec![])
                .when(reserve(kind, kind.most_travellers() + 1))
                .then_rejected(Refusal::TooMany { kind });
        }
    }
}
