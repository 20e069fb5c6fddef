//! Given, when, then: tests of sagas without a database, on a clock that only the test moves.

use std::{collections::HashMap, fmt::Debug, time::Duration};

use annals_eventstore::{Aggregate, testkit::recorded};
use chrono::{DateTime, TimeDelta, Utc};

use super::{
    Direction, Instance, On, Process, Progress, SagaEvent, SagaStatus, Wish,
    instance::Pending,
    machine::{self, Input, Moment, Outcome, Sent},
    source::Occurrence,
};

/// A saga in memory, to which one thing after the other happens.
///
/// ```
/// # use annals_eventstore::{Aggregate, Apply, Event, Recorded};
/// # use annals_projections::Saga;
/// # use annals_projections::saga::{Action, Actions, On, Process, Step};
/// # use serde::{Deserialize, Serialize};
/// # #[derive(Event, Serialize, Deserialize, Clone)]
/// # enum TripEvent { Requested }
/// # #[derive(Aggregate, Default)]
/// # #[aggregate(category = "trip", event = TripEvent)]
/// # struct Trip;
/// # impl Apply<TripEvent> for Trip { fn apply(&mut self, _: &TripEvent) {} }
/// # #[derive(Event, Serialize, Deserialize, Debug, PartialEq)]
/// # enum BookingEvent { Begun }
/// # #[derive(Serialize, Deserialize, Debug, PartialEq)]
/// # enum Call { BookFlight, CancelFlight, BookHotel }
/// # #[derive(Saga, Default)]
/// # #[saga(category = "booking", event = BookingEvent, call = Call, from(Trip))]
/// # struct Booking;
/// # impl Apply<BookingEvent> for Booking { fn apply(&mut self, _: &BookingEvent) {} }
/// # impl Process for Booking {
/// #     fn steps() -> Vec<Step<Self>> {
/// #         vec![
/// #             Self::step("flight", |_| Call::BookFlight).undo(|_| Call::CancelFlight),
/// #             Self::step("hotel", |_| Call::BookHotel),
/// #         ]
/// #     }
/// # }
/// # impl On<TripEvent> for Booking {
/// #     fn on(&self, _: &Recorded<TripEvent>) -> Actions<Self> {
/// #         vec![Action::RunAll, Action::timer("deadline", Duration::from_secs(600))]
/// #     }
/// # }
/// use std::time::Duration;
///
/// use annals_projections::saga::testkit::{Decision::*, GivenSaga};
///
/// GivenSaga::<Booking>::new("7")
///     .when_event::<Trip>("7", TripEvent::Requested)
///     .then([TimerSet("deadline".into(), Duration::from_secs(600)), Called(Call::BookFlight)])
///     .when_done("flight", ())
///     .then([Called(Call::BookHotel)])
///     .when_refused("hotel", "all rooms are taken")
///     .then([Compensating, Undoing(Call::CancelFlight)])
///     .when_done("flight", ())
///     .then([Compensated]);
/// ```
pub struct GivenSaga<S: Process> {
    key: String,
    instance: Instance<S>,
    now: DateTime<Utc>,
    versions: HashMap<String, i64>,
    position: i64,
    attempts: u32,
    latest: Vec<SagaEvent<S::Event>>,
}

/// What a saga decided, as far as others see it.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Decision<E, C> {
    /// It recorded an event of its own.
    Recorded(E),
    /// It does a step by this call.
    Called(C),
    /// It undoes a step by this call.
    Undoing(C),
    /// It took its call back, before anybody made it.
    Withdrawn,
    /// It set a timer, which goes off after this time.
    TimerSet(String, Duration),
    /// It stopped a timer.
    TimerCancelled(String),
    /// It began to undo what was done.
    Compensating,
    /// It got stuck.
    Stuck,
    /// It is complete.
    Completed,
    /// All that was done is undone.
    Compensated,
    /// It ended where it stood.
    Aborted,
}

impl<S: Process> Debug for GivenSaga<S> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("GivenSaga").field("status", &self.instance.status).finish_non_exhaustive()
    }
}

impl<S: Process> GivenSaga<S> {
    /// A saga that has not begun. It is the start of 1970.
    pub fn new(key: impl std::fmt::Display) -> Self {
        Self {
            key: key.to_string(),
            instance: Instance::default(),
            now: DateTime::UNIX_EPOCH,
            versions: HashMap::new(),
            position: 0,
            attempts: 0,
            latest: Vec::new(),
        }
    }

    /// The next event of an aggregate's stream. One that concerns another saga, or none, passes by.
    ///
    /// # Panics
    /// If the saga's code does.
    #[track_caller]
    #[must_use]
    pub fn when_event<A: Aggregate>(mut self, key: impl std::fmt::Display, event: A::Event) -> Self
    where
        S: On<A::Event>,
    {
        self.position += 1;
        let version = self.versions.entry(format!("{}-{key}", A::CATEGORY)).or_default();
        *version += 1;
        let event = recorded::<A>(&key, *version, self.position, event);
        let occurrence = Occurrence::of(event, 0);
        if occurrence.key.as_ref() != Some(&self.key) {
            self.latest.clear();
            return self;
        }
        self.happens(Input::Event(&occurrence))
    }

    /// The call of the step that it is at came through.
    ///
    /// # Panics
    /// If it waits for no call of this step.
    #[track_caller]
    #[must_use]
    pub fn when_done(self, step: &str, reply: S::Reply) -> Self {
        self.outcome(step, Outcome::Done(reply))
    }

    /// The call of the step that it is at was refused.
    ///
    /// # Panics
    /// If it waits for no call of this step.
    #[track_caller]
    #[must_use]
    pub fn when_refused(self, step: &str, reason: &str) -> Self {
        self.outcome(step, Outcome::Refused(reason.to_owned()))
    }

    /// An attempt at the call of the step that it is at failed, and nobody knows whether it had its effect.
    ///
    /// # Panics
    /// If it waits for no call of this step.
    #[track_caller]
    #[must_use]
    pub fn when_failed(mut self, step: &str, reason: &str) -> Self {
        self.attempts += 1;
        let (attempt, reason) = (self.attempts, reason.to_owned());
        let wait = Duration::from_secs(1);
        self.outcome(step, Outcome::Failed { attempt, reason, wait })
    }

    /// Time went on.
    ///
    /// # Panics
    /// If the saga's code does.
    #[track_caller]
    #[must_use]
    pub fn when_elapsed(mut self, time: Duration) -> Self {
        self.now += TimeDelta::from_std(time).unwrap_or(TimeDelta::MAX);
        self.happens(Input::Time)
    }

    /// Somebody wants something of it.
    ///
    /// # Panics
    /// If the saga's code does.
    #[track_caller]
    #[must_use]
    pub fn when_asked(self, wish: Wish) -> Self {
        self.happens(Input::Wish(wish, "asked by the test"))
    }

    #[track_caller]
    fn outcome(self, step: &str, outcome: Outcome<S::Reply>) -> Self {
        match &self.instance.pending {
            Some(Pending { step: at, id, due: Some(_), .. }) if at == step => {
                let id = *id;
                self.happens(Input::Outcome(id, &outcome))
            }
            Some(Pending { step: at, .. }) => panic!("the saga is at step {at:?}, not at {step:?}"),
            None => panic!("the saga waits for no call, also not of step {step:?}"),
        }
    }

    #[track_caller]
    fn happens(mut self, input: Input<'_, S>) -> Self {
        let moment = Moment { key: &self.key, now: self.now, sent: Sent::Maybe };
        let before = self.instance.pending.as_ref().map(|pending| (pending.id, pending.retries));
        match machine::step(&mut self.instance, moment, input) {
            Ok(decided) => self.latest = decided,
            Err(cause) => panic!("the saga cannot go on: {cause}"),
        }
        if self.instance.pending.as_ref().map(|pending| (pending.id, pending.retries)) != before {
            self.attempts = 0;
        }
        self
    }

    /// Expects exactly these decisions on what happened last.
    ///
    /// # Panics
    /// If the saga decided otherwise.
    #[track_caller]
    pub fn then(mut self, expected: impl Into<Vec<Decision<S::Event, S::Call>>>) -> Self
    where
        S::Event: Debug + PartialEq,
        S::Call: Debug + PartialEq,
    {
        let (latest, now) = (std::mem::take(&mut self.latest), self.now);
        let decided: Vec<_> =
            latest.into_iter().filter_map(|event| decision::<S>(event, now)).collect();
        assert_eq!(decided, expected.into(), "the saga decided otherwise");
        self
    }

    /// Expects that the saga is doing so now.
    ///
    /// # Panics
    /// If it is not.
    #[track_caller]
    pub fn then_status(self, expected: SagaStatus) -> Self {
        assert_eq!(self.instance.status, expected, "the saga is doing otherwise");
        self
    }

    /// The saga as it is now.
    pub fn instance(&self) -> &Instance<S> {
        &self.instance
    }
}

#[track_caller]
fn decision<S: Process>(
    event: SagaEvent<S::Event>,
    now: DateTime<Utc>,
) -> Option<Decision<S::Event, S::Call>> {
    let progress = match event {
        SagaEvent::Own(event) => return Some(Decision::Recorded(event)),
        SagaEvent::Progress(progress) => progress,
    };
    Some(match progress {
        Progress::Called { direction, call, .. } => {
            let call = match serde_json::from_value(call) {
                Ok(call) => call,
                Err(error) => panic!("a call cannot be read again: {error}"),
            };
            match direction {
                Direction::Do => Decision::Called(call),
                Direction::Undo => Decision::Undoing(call),
            }
        }
        Progress::Withdrawn { .. } => Decision::Withdrawn,
        Progress::TimerSet { timer, at } => {
            Decision::TimerSet(timer, (at - now).to_std().unwrap_or_default())
        }
        Progress::TimerCancelled { timer } => Decision::TimerCancelled(timer),
        Progress::Compensating { .. } => Decision::Compensating,
        Progress::Stuck { .. } => Decision::Stuck,
        Progress::Completed => Decision::Completed,
        Progress::Compensated => Decision::Compensated,
        Progress::Aborted { .. } => Decision::Aborted,
        _ => return None,
    })
}
