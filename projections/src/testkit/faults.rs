//! Faults on purpose, where events lead to effects: are they done once, whatever fails?
//!
//! [`Disturbed`] stands around a reactor, or around whoever makes the calls of a saga. What it is around is called as it would be
//! by workers that die, and whose answers are lost: again, with the same id. What heeds the id comes out exact.
//!
//! ```
//! # use annals_eventstore::{Aggregate, Apply, Event, EventStore, Recorded};
//! # use annals_projections::{Cause, Effect, React, Reaction, Reactor, ReactorSource, Worker};
//! # use serde::{Deserialize, Serialize};
//! # #[derive(Event, Serialize, Deserialize)]
//! # enum LoanEvent { Approved { amount: i64 } }
//! # #[derive(Aggregate, Default)]
//! # #[aggregate(category = "loan", event = LoanEvent)]
//! # struct Loan;
//! # impl Apply<LoanEvent> for Loan { fn apply(&mut self, _: &LoanEvent) {} }
//! # struct Payout;
//! # impl Reactor for Payout {
//! #     fn name(&self) -> &str { "payout" }
//! #     fn sources() -> Vec<ReactorSource<Self>> { vec![ReactorSource::of::<Loan>()] }
//! # }
//! # impl React<LoanEvent> for Payout {
//! #     async fn react(&self, _: &Recorded<LoanEvent>, _: &Effect) -> Result<Reaction, Cause> {
//! #         Ok(Reaction::Done)
//! #     }
//! # }
//! use annals_eventstore::testkit::faults::{Fault, Faults, Seed};
//! use annals_projections::testkit::faults::Disturbed;
//!
//! # fn run(store: &EventStore) -> Worker {
//! let faults = Faults::new(Seed::any()).rate(Fault::LostAnswer, 0.2).rate(Fault::Repetition, 0.1);
//! Worker::new(store).reactor(Disturbed::new(Payout, &faults))
//! # }
//! ```

use std::sync::Arc;

use annals_eventstore::{
    breaker::CircuitBreaker,
    testkit::faults::{Fault, Faults, Injected},
};
use futures::FutureExt;

use crate::{
    guard::Cause,
    reactor::{Call, Reactor, ReactorSource},
    saga::{Answer, Attempt, Perform, Saga},
    start::Start,
};

/// The fail points of workers, on top of those of the store, in the same way.
///
/// | Point | The worker | `return` |
/// |---|---|---|
/// | `batch-read` | has read events for a projection, a reactor or a saga | nothing is done |
/// | `batch-written` | has written what comes of them, and not committed | it is rolled back |
/// | `batch-committed` | has committed it | the answer is lost |
/// | `reaction-begun` | is about to call a reactor | it is not called |
/// | `reaction-done` | has called it | the answer is lost |
/// | `saga-heard` | has recorded what events lead to in sagas | the answer is lost |
/// | `saga-timer-due` | has found timers that are due, or wishes | nothing is done |
/// | `saga-calling` | is about to make a call of a saga | it is not made |
/// | `saga-called` | has made it | the answer is lost |
/// | `saga-outcome-recorded` | has recorded what came of calls and timers | the answer is lost |
pub const PROJECTION_FAIL_POINTS: [&str; 10] = [
    "batch-read",
    "batch-written",
    "batch-committed",
    "reaction-begun",
    "reaction-done",
    "saga-heard",
    "saga-timer-due",
    "saga-calling",
    "saga-called",
    "saga-outcome-recorded",
];

/// The fail points of a worker that Kafka feeds, on top of the others.
///
/// | Point | The worker | `return` |
/// |---|---|---|
/// | `kafka-page-taken` | has taken events from the topics, and offsets behind them | nothing is done |
/// | `offsets-noting` | is about to write these offsets, in the transaction of what comes of the events | it is rolled back |
/// | `offsets-noted` | has written them there, and not committed | it is rolled back |
#[cfg(feature = "kafka")]
pub const KAFKA_FED_FAIL_POINTS: [&str; 3] =
    ["kafka-page-taken", "offsets-noting", "offsets-noted"];

/// The fail points of a [`Rebuild`](crate::Rebuild), on top of the others.
///
/// | Point | The rebuild | `return` |
/// |---|---|---|
/// | `rebuild-writing` | has written rows, and not committed them; the history may be indexed | they are written again |
/// | `rebuild-filled` | has filled the tables, and indexed the history | they are gone on with |
/// | `rebuild-indexed` | has made the indexes, and not noted it | they are gone on with |
/// | `rebuild-built` | has noted that they are there | they are gone on with |
/// | `rebuild-swapping` | has put the tables in place, and not committed | it is rolled back |
/// | `rebuild-swapped` | has committed it | the answer is lost |
/// | `rebuild-rolling-back` | has put the old tables back, and not committed | it is rolled back |
/// | `rebuild-rolled-back` | has committed it | the answer is lost |
pub const REBUILD_FAIL_POINTS: [&str; 8] = [
    "rebuild-writing",
    "rebuild-filled",
    "rebuild-indexed",
    "rebuild-built",
    "rebuild-swapping",
    "rebuild-swapped",
    "rebuild-rolling-back",
    "rebuild-rolled-back",
];

/// A reactor, or who makes the calls of a saga, among [`Faults`].
///
/// Of these, [`Failure`](Fault::Failure), [`TimedOut`](Fault::TimedOut), [`LostAnswer`](Fault::LostAnswer),
/// [`Repetition`](Fault::Repetition) and [`Delay`](Fault::Delay) happen to it, drawn by the id of the effect or call. What fails
/// is tried again by the worker as ever: rates that let all attempts fail have an event parked, or a saga stuck or compensated.
#[derive(Clone, Debug)]
pub struct Disturbed<T> {
    inner: T,
    faults: Faults,
}

impl<T> Disturbed<T> {
    /// Around a reactor or a performer.
    pub fn new(inner: T, faults: &Faults) -> Self {
        Self { inner, faults: faults.clone() }
    }

    /// Does something that can be done again, and fails before or after it.
    async fn disturb<A, F>(
        &self,
        what: &'static str,
        which: &str,
        mut deed: impl FnMut() -> F + Send,
    ) -> Result<A, Cause>
    where
        F: Future<Output = Result<A, Cause>> + Send,
        A: Send,
    {
        self.faults.pause(what, which).await;
        self.faults.admit(what, which)?;
        let mut answer = deed().await?;
        if self.faults.happens(Fault::Repetition, what, which) {
            answer = deed().await?;
        }
        if self.faults.happens(Fault::LostAnswer, what, which) {
            return Err(Injected::at(what).answer_lost().into());
        }
        Ok(answer)
    }
}

impl<R: Reactor> Reactor for Disturbed<R> {
    fn name(&self) -> &str {
        self.inner.name()
    }

    fn sources() -> Vec<ReactorSource<Self>> {
        let around = |source: ReactorSource<R>| source.for_one_around(around::<R>);
        R::sources().into_iter().map(around).collect()
    }

    fn slices(&self) -> u16 {
        self.inner.slices()
    }

    fn concurrency(&self) -> usize {
        self.inner.concurrency()
    }

    fn start(&self) -> Start {
        self.inner.start()
    }
}

fn around<R: Reactor>(call: Arc<Call<R>>) -> Arc<Call<Disturbed<R>>> {
    Arc::new(move |disturbed, effect| {
        let call = call.clone();
        let deed = async move {
            let which = effect.id.to_string();
            disturbed.disturb("react", &which, || call(&disturbed.inner, effect)).await
        };
        deed.boxed()
    })
}

impl<S: Saga, P: Perform<S>> Perform<S> for Disturbed<P> {
    async fn perform(&self, call: &S::Call, attempt: &Attempt) -> Result<Answer<S::Reply>, Cause> {
        let which = attempt.id.to_string();
        self.disturb("call", &which, || self.inner.perform(call, attempt)).await
    }

    fn circuit(&self, call: &S::Call) -> Option<&CircuitBreaker> {
        self.inner.circuit(call)
    }

    fn concurrency(&self) -> usize {
        self.inner.concurrency()
    }
}
