//! Sagas, or process managers: what has to happen in several places, or be undone in all of them.
//!
//! A [`Saga`] hears events ([`On`]), and decides: which of its steps to do, what to record, which timers to set,
//! when to give up ([`Action`]). Each step is a call that does it and a call that undoes it ([`Process`]). Calls go
//! to whoever is asked ([`Perform`]): to the own store as commands, or to other services. A worker runs it all:
//! [`Worker::saga`](crate::Worker::saga).
//!
//! Each saga is a stream of its own. What it decides on an event, its timers, its next call and the mark that the
//! event was heard are recorded in one transaction, so each event is heard exactly once. Calls are made from what is
//! recorded, one at a time for each saga, and again after a crash under the same id. Nothing is sent by reading a
//! stream again.
//!
//! What somebody should look at is listed by [`control::list`], and [`testkit::GivenSaga`] tests all of it without a
//! database.

mod action;
mod call;
pub mod control;
mod desk;
mod due;
mod event;
mod feeding;
mod instance;
mod ledger;
mod machine;
mod making;
mod row;
mod source;
mod step;
pub mod testkit;
#[cfg(test)]
mod tests;
mod turn;

use std::fmt;

use annals_eventstore::{Apply, Event, Recorded};
use serde::{Serialize, de::DeserializeOwned};

pub use self::{
    action::{Action, Actions, Due},
    call::{Answer, Attempt, Perform},
    control::Wish,
    event::{Direction, Progress, SagaEvent},
    instance::{Instance, SagaStatus},
    source::SagaSource,
    step::{Retry, Step},
};
pub(crate) use self::{
    desk::{Desk, DeskOptions},
    feeding::Feeding,
    ledger::Ledger,
};

/// What a saga is: its state, its events, and what it can ask for. Derive it.
///
/// The state is folded from the events that the saga records itself ([`Apply`]). Events of running sagas can be
/// given other shapes by upcasters, like all events. A call is kept as JSON from when it is decided to when it is
/// answered, so let new fields have defaults (`#[serde(default)]`) while sagas of an older version run.
///
/// ```
/// # use annals_eventstore::{Aggregate, Apply, Event};
/// # use annals_projections::saga::{Actions, Action, On, Process, Step};
/// # use annals_projections::Saga;
/// # use annals_eventstore::Recorded;
/// # use serde::{Deserialize, Serialize};
/// # #[derive(Event, Serialize, Deserialize, Clone)]
/// # enum TripEvent { Requested { city: String } }
/// # #[derive(Aggregate, Default)]
/// # #[aggregate(category = "trip", event = TripEvent)]
/// # struct Trip;
/// # impl Apply<TripEvent> for Trip { fn apply(&mut self, _: &TripEvent) {} }
/// #[derive(Event, Serialize, Deserialize)]
/// enum BookingEvent {
///     Begun { city: String },
/// }
///
/// #[derive(Serialize, Deserialize)]
/// enum Call {
///     BookHotel { city: String },
///     CancelHotel,
/// }
///
/// #[derive(Saga, Default)]
/// #[saga(category = "booking", event = BookingEvent, call = Call, from(Trip))]
/// struct Booking {
///     city: String,
/// }
///
/// impl Apply<BookingEvent> for Booking {
///     fn apply(&mut self, event: &BookingEvent) {
///         let BookingEvent::Begun { city } = event;
///         self.city.clone_from(city);
///     }
/// }
///
/// impl Process for Booking {
///     fn steps() -> Vec<Step<Self>> {
///         let hotel = Self::step("hotel", |saga| Call::BookHotel { city: saga.city.clone() });
///         vec![hotel.undo(|_| Call::CancelHotel)]
///     }
/// }
///
/// impl On<TripEvent> for Booking {
///     fn on(&self, event: &Recorded<TripEvent>) -> Actions<Self> {
///         let TripEvent::Requested { city } = &event.event;
///         vec![Action::record(BookingEvent::Begun { city: city.clone() }), Action::RunAll]
///     }
/// }
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a saga",
    label = "not a saga",
    note = "add `#[derive(Saga, Default)]` and `#[saga(category = \"...\", event = ..., call = ..., from(...))]`"
)]
pub trait Saga: Apply<Self::Event> + Default + Send + Sync + 'static {
    /// The category of its streams, and its name. It must not change: under another name it is another saga, whose
    /// calls have other ids.
    const CATEGORY: &'static str;
    /// What it records itself. The stored names must not begin with `saga.`.
    type Event: Event;
    /// What it asks of others.
    type Call: Serialize + DeserializeOwned + Send + Sync + 'static;
    /// What they reply.
    type Reply: Serialize + DeserializeOwned + Send + Sync + 'static;

    /// Where the events come from that it hears.
    fn sources() -> Vec<SagaSource<Self>>;
}

/// What a saga does. All of it is pure, so it can be tested without a database, and done again after a conflict.
#[diagnostic::on_unimplemented(
    message = "the saga `{Self}` does not say what its steps are",
    label = "`Process` is missing",
    note = "write `impl Process for {Self}`: its steps, and what it makes of replies, failures and timers"
)]
pub trait Process: Saga {
    /// Its steps, in the order in which [`Action::RunAll`] does them. A saga at work knows them by their names: one
    /// that is renamed is a step that running sagas do not find, and get stuck at.
    fn steps() -> Vec<Step<Self>>;

    /// A step with this name, done by this call. Not for implementation.
    fn step(name: &'static str, call: fn(&Self) -> Self::Call) -> Step<Self> {
        Step::new(name, call)
    }

    /// A step is done: what to record of the reply, say. Nothing unless implemented. Also asked while the saga
    /// compensates, of a step that was under way then, before that is undone. Replies to calls that undo are not told.
    fn answered(&self, step: &str, reply: &Self::Reply) -> Actions<Self> {
        let _ = (step, reply);
        Vec::new()
    }

    /// A step was refused, or nobody knows whether it was done and its attempts are spent: then it is undone as well
    /// when the saga compensates, which it does unless this is implemented.
    fn failed(&self, step: &str, failure: &Failure) -> Actions<Self> {
        vec![Action::compensate(format_args!("step {step} failed: {failure}"))]
    }

    /// A timer went off: the saga compensates unless this is implemented.
    fn elapsed(&self, timer: &str) -> Actions<Self> {
        vec![Action::compensate(format_args!("timer {timer} went off"))]
    }
}

/// What a saga makes of one kind of events.
#[diagnostic::on_unimplemented(
    message = "the saga `{Self}` does not say what it makes of `{E}`",
    label = "`On<{E}>` is missing",
    note = "it names an aggregate with these events in `from(..)`: write `impl On<{E}> for {Self}`"
)]
pub trait On<E>: Process {
    /// The key of the saga that an event concerns, `None` if it concerns none: the key of the event's stream unless
    /// implemented.
    fn key(event: &Recorded<E>) -> Option<String> {
        Some(event.stream.key().to_owned())
    }

    /// Decides. The first event that leads to anything begins the saga; one that leads to nothing is not noted. A
    /// saga that has ended hears nothing more.
    fn on(&self, event: &Recorded<E>) -> Actions<Self>;
}

/// Why a step failed.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Failure {
    /// It was refused, for this reason, and had no effect.
    Refused(String),
    /// Its attempts are spent, the last one for this reason, and nobody knows whether one of them had its effect.
    Unknown(String),
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused(reason) => write!(f, "it was refused: {reason}"),
            Self::Unknown(reason) => write!(f, "its attempts are spent: {reason}"),
        }
    }
}
