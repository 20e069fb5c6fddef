//! The steps of a saga: how each is done, undone and tried again.

use std::time::Duration;

use annals_eventstore::Waits;

use super::Saga;

/// A step of a saga: a call that does it, and one that undoes it. Make one with
/// [`Process::step`](super::Process::step).
pub struct Step<S: Saga> {
    pub(super) name: &'static str,
    pub(super) call: fn(&S) -> S::Call,
    pub(super) undo: Option<fn(&S) -> S::Call>,
    pub(super) retry: Retry,
    pub(super) retry_undo: Retry,
    pub(super) time_limit: Duration,
    pub(super) when_failed: WhenFailed,
}

/// What becomes of a saga whose step is refused, or whose attempts are spent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum WhenFailed {
    Tell,
    GetStuck,
}

impl<S: Saga> std::fmt::Debug for Step<S> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Step").field("name", &self.name).finish_non_exhaustive()
    }
}

impl<S: Saga> Step<S> {
    pub(super) fn new(name: &'static str, call: fn(&S) -> S::Call) -> Self {
        Self {
            name,
            call,
            undo: None,
            retry: Retry::attempts(5),
            retry_undo: Retry::attempts(10),
            time_limit: Duration::from_secs(10),
            when_failed: WhenFailed::Tell,
        }
    }

    /// The call that undoes it. It is made from what the saga knows when it begins to compensate, also where nobody
    /// knows whether the step was done: [`Attempt::undoes`](super::Attempt::undoes) is the id of the call that it is
    /// to undo, so whoever is called can tell.
    ///
    /// A step without one has nothing to be undone.
    #[must_use]
    pub fn undo(mut self, call: fn(&S) -> S::Call) -> Self {
        self.undo = Some(call);
        self
    }

    /// How it is tried again when nobody knows what came of it: 5 attempts unless set.
    #[must_use]
    pub fn retry(mut self, retry: Retry) -> Self {
        self.retry = retry;
        self
    }

    /// The same for undoing it: 10 attempts unless set.
    #[must_use]
    pub fn retry_undo(mut self, retry: Retry) -> Self {
        self.retry_undo = retry;
        self
    }

    /// How long an attempt may take, either way: 10 seconds unless set. What is not answered by then may have had
    /// its effect, and is tried again.
    #[must_use]
    pub fn time_limit(mut self, limit: Duration) -> Self {
        self.time_limit = limit;
        self
    }

    /// Makes it the point of no return, or one behind it: once it has begun, the saga decides no more to compensate,
    /// and if it is refused, or its attempts are spent, the saga gets stuck there until somebody sees to it.
    #[must_use]
    pub fn must_succeed(mut self) -> Self {
        self.when_failed = WhenFailed::GetStuck;
        self
    }
}

/// How a call is tried again: so many attempts, and growing waits of a random length in between.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Retry {
    /// How many attempts there are.
    pub attempts: u32,
    /// How long to wait after the first one, at most; at least half as long.
    pub first: Duration,
    /// How long to wait at most. The waits double up to there; each is a random one, from half to all of that.
    pub most: Duration,
}

impl Retry {
    /// So many attempts, at least one; waits from a second up to a minute.
    pub const fn attempts(attempts: u32) -> Self {
        let attempts = if attempts == 0 { 1 } else { attempts };
        Self { attempts, first: Duration::from_secs(1), most: Duration::from_secs(60) }
    }

    /// With other waits.
    #[must_use]
    pub const fn waits(mut self, first: Duration, most: Duration) -> Self {
        (self.first, self.most) = (first, most);
        self
    }

    /// How long to wait after so many attempts.
    pub(super) fn wait(&self, attempts: u32) -> Duration {
        let mut waits = Waits::half(self.first, self.most);
        waits.nth(attempts.saturating_sub(1) as usize).unwrap_or(self.first)
    }
}
