//! What a saga decides.

use std::time::Duration;

use chrono::{DateTime, Utc};

use super::Saga;

/// What the saga `S` decides, in the order in which it is done.
pub type Actions<S> = Vec<Action<<S as Saga>::Event>>;

/// One thing that a saga decides. Once the saga compensates, nothing but [`Record`](Self::Record) and the timers has
/// an effect.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Action<E> {
    /// Records an event of the saga's own, which its state is folded from.
    Record(E),
    /// Does a step, once those that were asked for before are done.
    Run(String),
    /// Does all steps, in their order, and completes.
    RunAll,
    /// Completes, once all that was asked for is done.
    Complete,
    /// Undoes what was done, in reverse, for this reason. A call that is under way is waited for. Has no effect once a
    /// step has begun that [must succeed](super::Step::must_succeed).
    Compensate(String),
    /// Sets a timer, or sets it anew.
    Timer {
        /// Its name.
        name: String,
        /// When it goes off.
        due: Due,
    },
    /// Stops a timer, if it runs.
    CancelTimer(String),
}

/// When a timer goes off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Due {
    /// So long after the decision, by the database's clock.
    After(Duration),
    /// At that time; at once if it is over.
    At(DateTime<Utc>),
}

impl<E> Action<E> {
    /// [`Record`](Self::Record)s an event.
    pub fn record(event: E) -> Self {
        Self::Record(event)
    }

    /// [`Run`](Self::Run)s the step with this name.
    pub fn run(step: impl Into<String>) -> Self {
        Self::Run(step.into())
    }

    /// [`Compensate`](Self::Compensate)s for this reason.
    pub fn compensate(reason: impl std::fmt::Display) -> Self {
        Self::Compensate(reason.to_string())
    }

    /// A timer that goes off after a while.
    pub fn timer(name: impl Into<String>, after: Duration) -> Self {
        Self::Timer { name: name.into(), due: Due::After(after) }
    }

    /// A timer that goes off at a time: so long after what happened, say, however late it is decided.
    pub fn timer_at(name: impl Into<String>, at: DateTime<Utc>) -> Self {
        Self::Timer { name: name.into(), due: Due::At(at) }
    }

    /// Stops the timer with this name.
    pub fn cancel_timer(name: impl Into<String>) -> Self {
        Self::CancelTimer(name.into())
    }
}

impl Due {
    pub(super) fn at(self, now: DateTime<Utc>) -> DateTime<Utc> {
        match self {
            Self::At(at) => at,
            Self::After(wait) => {
                let wait = chrono::TimeDelta::from_std(wait).unwrap_or(chrono::TimeDelta::MAX);
                now.checked_add_signed(wait).unwrap_or(DateTime::<Utc>::MAX_UTC)
            }
        }
    }
}
