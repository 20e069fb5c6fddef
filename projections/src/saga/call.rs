//! Calls: what a saga asks of others, and what they say.

use annals_eventstore::{
    Command, Committed, Envelope, EventStore, ExecuteError, Handle, Metadata, StreamId,
    breaker::CircuitBreaker,
};
use uuid::Uuid;

use super::{Direction, Saga};
use crate::guard::Cause;

/// The namespace of the ids of calls. Never change it: all ids would be others.
const NAMESPACE: Uuid = Uuid::from_u128(0x5d2b_7f6e_91c4_4a83_b0ad_62e1_7cf0_4d15);

/// Makes the calls of a saga: executes commands, calls services.
///
/// A crash repeats a call, with the same [`Attempt::id`]: hand it on as the idempotency key, so that what the call
/// asks for is done once.
pub trait Perform<S: Saga>: Send + Sync + 'static {
    /// Makes a call. If it takes longer than the step's
    /// [`time_limit`](super::Step::time_limit), or the worker stops, it is dropped at any `await`, and
    /// counts as an attempt that failed.
    ///
    /// # Errors
    /// Any: nobody knows whether the call had its effect. It is tried again, under the same id, as long as the step
    /// allows. Where it surely had none, say [`Answer::Refused`]. A panic is such an error.
    fn perform(
        &self,
        call: &S::Call,
        attempt: &Attempt,
    ) -> impl Future<Output = Result<Answer<S::Reply>, Cause>> + Send;

    /// The circuit breaker that a call goes through: none unless implemented. Give each service that is called one of its
    /// own, and return the same one each time.
    ///
    /// While it is open the call is put off and not made, which counts as no attempt. Then exactly one call goes through,
    /// of whichever saga, and what comes of it decides; if that fails, it was the service and not the call, and does
    /// not count either. So a step with two attempts or more outlasts any outage: give sagas that may not wait
    /// so long a deadline. Errors count as failures, and so do panics and calls that take longer than their step's
    /// limit; answers do not, [`Refused`](Answer::Refused) and [`RetryAfter`](Answer::RetryAfter) among them.
    ///
    /// ```
    /// # use annals_eventstore::{Aggregate, Apply, Event, Recorded};
    /// use annals_eventstore::breaker::{BreakerOptions, CircuitBreaker};
    /// # use annals_projections::{Cause, Saga, saga::{Actions, Answer, Attempt, On, Perform, Process, Step}};
    /// # use serde::{Deserialize, Serialize};
    /// # #[derive(Event, Serialize, Deserialize, Clone)]
    /// # enum TripEvent { Requested }
    /// # #[derive(Aggregate, Default)]
    /// # #[aggregate(category = "trip", event = TripEvent)]
    /// # struct Trip;
    /// # impl Apply<TripEvent> for Trip { fn apply(&mut self, _: &TripEvent) {} }
    /// # #[derive(Serialize, Deserialize)]
    /// # enum Call { BookHotel, Confirm }
    /// # #[derive(Saga, Default)]
    /// # #[saga(category = "booking", event = TripEvent, call = Call, from(Trip))]
    /// # struct Booking;
    /// # impl Apply<TripEvent> for Booking { fn apply(&mut self, _: &TripEvent) {} }
    /// # impl Process for Booking { fn steps() -> Vec<Step<Self>> { vec![] } }
    /// # impl On<TripEvent> for Booking { fn on(&self, _: &Recorded<TripEvent>) -> Actions<Self> { vec![] } }
    /// struct Services {
    ///     hotel: CircuitBreaker,
    /// }
    ///
    /// impl Perform<Booking> for Services {
    ///     async fn perform(&self, call: &Call, attempt: &Attempt) -> Result<Answer<()>, Cause> {
    ///         // Calls the service.
    /// #       Ok(Answer::Done(()))
    ///     }
    ///
    ///     fn circuit(&self, call: &Call) -> Option<&CircuitBreaker> {
    ///         match call {
    ///             Call::BookHotel => Some(&self.hotel),
    ///             // In the saga's own store.
    ///             Call::Confirm => None,
    ///         }
    ///     }
    /// }
    ///
    /// let services = Services { hotel: CircuitBreaker::new("hotel", BreakerOptions::default()) };
    /// assert!(services.circuit(&Call::Confirm).is_none());
    /// ```
    fn circuit(&self, _call: &S::Call) -> Option<&CircuitBreaker> {
        None
    }

    /// How many calls a worker makes at the same time: 64 unless implemented. Of one saga there is never more than
    /// one.
    fn concurrency(&self) -> usize {
        64
    }
}

/// What comes of a call.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Answer<R> {
    /// It is done.
    Done(R),
    /// It had no effect, and trying again would not change that.
    Refused(String),
    /// Not now: it had no effect, and is to be tried again after this time. That is no failure and counts as no
    /// attempt.
    RetryAfter(std::time::Duration),
}

/// One attempt at a call.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Attempt {
    /// The same on every attempt and in every process, and another for every other call: the idempotency key. It is
    /// a UUID of version 5 of the saga, the step and the direction.
    pub id: Uuid,
    /// Which attempt this is: 1, 2, 3.
    pub attempt: u32,
    /// The stream of the saga.
    pub saga: StreamId,
    /// The step.
    pub step: String,
    /// Whether the step is done or undone.
    pub direction: Direction,
    /// Of a call that undoes a step, the id of the one that did it. That one may have been lost on its way, or still
    /// be on it: whoever does not know this id should note it, and refuse what comes under it later.
    pub undoes: Option<Uuid>,
    pub(super) correlation_id: Option<String>,
    pub(super) traceparent: Option<String>,
}

impl Attempt {
    /// Metadata for what the call leads to: the saga's correlation and trace, caused by this call.
    pub fn metadata(&self) -> Metadata {
        let mut metadata = Metadata::new().causation_id(self.id);
        metadata.correlation_id.clone_from(&self.correlation_id);
        metadata.traceparent.clone_from(&self.traceparent);
        metadata
    }

    /// Executes a command of a store, under this call's id: exactly once, however often it is tried. A rejected
    /// command is [`Refused`](Answer::Refused).
    ///
    /// # Errors
    /// If the store fails.
    pub async fn execute<C, R>(
        &self,
        store: &EventStore,
        command: C,
        reply: impl FnOnce(Committed) -> R + Send,
    ) -> Result<Answer<R>, Cause>
    where
        C: Command,
        C::Aggregate: Handle<C>,
    {
        let command =
            Envelope::new(command).idempotency_key(self.id.to_string()).metadata(self.metadata());
        match store.execute(command).await {
            Ok(committed) => Ok(Answer::Done(reply(committed))),
            Err(ExecuteError::Rejected(reason)) => Ok(Answer::Refused(reason.to_string())),
            Err(error) => Err(error.into()),
        }
    }
}

/// What tells one call from another.
#[derive(Clone, Copy, Debug)]
pub(super) struct CallOf<'a> {
    pub(super) category: &'a str,
    pub(super) key: &'a str,
    pub(super) step: &'a str,
    pub(super) direction: Direction,
    pub(super) run: u32,
    pub(super) round: u32,
}

impl CallOf<'_> {
    pub(super) fn id(self) -> Uuid {
        let Self { category, key, step, direction, run, round } = self;
        let saga = Uuid::new_v5(&Uuid::new_v5(&NAMESPACE, category.as_bytes()), key.as_bytes());
        let direction = match direction {
            Direction::Do => "do",
            Direction::Undo => "undo",
        };
        Uuid::new_v5(&saga, format!("{step}\0{direction}\0{run}\0{round}").as_bytes())
    }
}
