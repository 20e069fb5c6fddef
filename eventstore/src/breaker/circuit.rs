//! A breaker that many tasks share.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use super::{Breaker, BreakerOptions, CircuitState, Outcome, Permit};
use crate::metrics::{CIRCUIT_REFUSED, CIRCUIT_STATE};

/// A circuit breaker with a name and a clock. Clones share its state.
///
/// Its state is the gauge `annals_circuit_state` (0 closed, 1 half open, 2 open), and what it refuses is
/// counted in `annals_circuit_refused_total`, both with the label `circuit`.
#[derive(Clone, Debug)]
pub struct CircuitBreaker(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    name: String,
    state: Mutex<Circuit>,
}

#[derive(Debug)]
struct Circuit {
    breaker: Breaker,
    by_hand: Option<Override>,
}

/// What an operator has decided, whatever comes of attempts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Override {
    /// Nothing goes through.
    Open,
    /// Everything goes through.
    Closed,
}

/// What a call that goes through is to a circuit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Passage {
    /// One of many: the circuit is closed.
    Usual,
    /// The one that decides if it closes.
    Trial,
}

/// Why a call came to nothing.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Broken<E> {
    /// It was not made: calls before it failed.
    #[error("the circuit {circuit:?} is open; try again in {retry_after:?}")]
    Open {
        /// The circuit's name.
        circuit: String,
        /// When it makes sense to try again. Zero while the one attempt that decides is under way, or
        /// unknown if it was opened by hand.
        retry_after: Duration,
    },
    /// It was made, and failed.
    #[error(transparent)]
    Failed(E),
}

impl CircuitBreaker {
    /// A closed one. The name is the one in metrics, logs and errors.
    pub fn new(name: impl Into<String>, options: BreakerOptions) -> Self {
        let state = Mutex::new(Circuit { breaker: Breaker::new(options), by_hand: None });
        let circuit = Self(Arc::new(Shared { name: name.into(), state }));
        circuit.show(CircuitState::Closed);
        // What has not happened yet is zero, and not unknown.
        metrics::counter!(CIRCUIT_REFUSED.name, "circuit" => circuit.0.name.clone()).increment(0);
        circuit
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.0.name
    }

    /// What it does at the moment.
    pub fn state(&self) -> CircuitState {
        self.circuit().state(Instant::now())
    }

    /// Opens or closes it by hand, or, with `None`, leaves it to itself again, closed.
    pub fn set_override(&self, by_hand: Option<Override>) {
        let mut circuit = self.circuit();
        circuit.by_hand = by_hand;
        circuit.breaker.reset();
        let state = circuit.state(Instant::now());
        drop(circuit);
        tracing::warn!(circuit = self.0.name, ?by_hand, "a circuit breaker was set by hand");
        self.show(state);
    }

    /// Makes a call, unless the circuit is open. `counts` says of an error if it speaks against the other
    /// side; one that does not, such as a refusal for good reasons, shows that it works.
    ///
    /// Cancellation safe: a call whose future is dropped says nothing about the other side. The future that
    /// is given is not polled if the circuit is open.
    ///
    /// # Errors
    /// [`Broken::Open`] if it was not made, else what it failed with.
    pub async fn call<T, E>(
        &self,
        call: impl Future<Output = Result<T, E>>,
        counts: impl FnOnce(&E) -> bool,
    ) -> Result<T, Broken<E>> {
        self.call_as(|_| call, counts).await
    }

    /// The same for who wants to know what the call is to the circuit. Of a trial that fails, its caller may say that it was
    /// the other side and not the call.
    ///
    /// # Errors
    /// As [`call`](Self::call).
    pub async fn call_as<T, E, F>(
        &self,
        call: impl FnOnce(Passage) -> F,
        counts: impl FnOnce(&E) -> bool,
    ) -> Result<T, Broken<E>>
    where
        F: Future<Output = Result<T, E>>,
    {
        let attempt = match self.ask() {
            Ok(permit) => Attempt { circuit: self, permit },
            Err(retry_after) => {
                metrics::counter!(CIRCUIT_REFUSED.name, "circuit" => self.0.name.clone())
                    .increment(1);
                return Err(Broken::Open { circuit: self.0.name.clone(), retry_after });
            }
        };
        let trial = attempt.permit.as_ref().is_some_and(Permit::is_trial);
        let result = call(if trial { Passage::Trial } else { Passage::Usual }).await;
        attempt.report(match &result {
            Err(error) if counts(error) => Outcome::Failure,
            _ => Outcome::Success,
        });
        result.map_err(Broken::Failed)
    }

    /// What was decided by hand.
    #[cfg(feature = "kafka")]
    pub(crate) fn by_hand(&self) -> Option<Override> {
        self.circuit().by_hand
    }

    /// Asks for leave to make an attempt; closed by hand, there is nothing to report of it. The error is when it
    /// makes sense to ask again.
    pub(crate) fn ask(&self) -> Result<Option<Permit>, Duration> {
        let now = Instant::now();
        let mut circuit = self.circuit();
        let permit = match circuit.by_hand {
            Some(Override::Open) => Err(Duration::ZERO),
            Some(Override::Closed) => Ok(None),
            None => match circuit.breaker.ask(now) {
                Some(permit) => Ok(Some(permit)),
                None => {
                    let until = circuit.breaker.open_until().unwrap_or(now);
                    Err(until.saturating_duration_since(now))
                }
            },
        };
        let state = circuit.state(now);
        drop(circuit);
        if matches!(&permit, Ok(Some(permit)) if permit.is_trial()) {
            self.show(state);
        }
        permit
    }

    /// Takes note of what came of an attempt.
    pub(crate) fn report(&self, permit: Permit, outcome: Outcome) {
        let now = Instant::now();
        let mut circuit = self.circuit();
        let before = circuit.state(now);
        circuit.breaker.report(permit, outcome, now);
        let state = circuit.state(now);
        drop(circuit);
        if state != before {
            let circuit = self.name();
            tracing::warn!(circuit, from = ?before, to = ?state, "a circuit breaker changed");
            self.show(state);
        }
    }

    fn circuit(&self) -> MutexGuard<'_, Circuit> {
        // It is whole after each assignment, wherever a panic happens.
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn show(&self, state: CircuitState) {
        circuit_state(&self.0.name, state);
    }
}

/// Sets the metric of a circuit's state, for breakers that are kept elsewhere.
#[doc(hidden)]
pub fn circuit_state(circuit: &str, state: CircuitState) {
    let value = match state {
        CircuitState::Closed => 0.0,
        CircuitState::HalfOpen => 1.0,
        CircuitState::Open => 2.0,
    };
    metrics::gauge!(CIRCUIT_STATE.name, "circuit" => circuit.to_owned()).set(value);
}

impl Circuit {
    fn state(&self, now: Instant) -> CircuitState {
        match self.by_hand {
            Some(Override::Open) => CircuitState::Open,
            Some(Override::Closed) => CircuitState::Closed,
            None => self.breaker.state(now),
        }
    }
}

/// An attempt under way. Dropped, it was not made.
struct Attempt<'a> {
    circuit: &'a CircuitBreaker,
    permit: Option<Permit>,
}

impl Attempt<'_> {
    fn report(mut self, outcome: Outcome) {
        self.settle(outcome);
    }

    fn settle(&mut self, outcome: Outcome) {
        if let Some(permit) = self.permit.take() {
            self.circuit.report(permit, outcome);
        }
    }
}

impl Drop for Attempt<'_> {
    fn drop(&mut self) {
        self.settle(Outcome::None);
    }
}

#[cfg(test)]
mod tests {
    use std::future::pending;

    use futures::FutureExt;

    use super::*;

    async fn fails(circuit: &CircuitBreaker) -> Result<(), Broken<&'static str>> {
        circuit.call(async { Err("down") }, |_| true).await
    }

    async fn works(circuit: &CircuitBreaker) -> Result<(), Broken<&'static str>> {
        circuit.call(async { Ok(()) }, |_| true).await
    }

    fn circuit() -> CircuitBreaker {
        let cool_down = Duration::from_millis(40);
        CircuitBreaker::new(
            "t",
            BreakerOptions::default().failures(2).cool_down(cool_down, cool_down),
        )
    }

    #[tokio::test]
    async fn one_of_many_goes_through_when_it_is_half_open() {
        let circuit = circuit();
        for _ in 0..2 {
            assert!(matches!(fails(&circuit).await, Err(Broken::Failed("down"))));
        }
        assert_eq!(circuit.state(), CircuitState::Open);
        assert!(matches!(works(&circuit).await, Err(Broken::Open { .. })));
        tokio::time::sleep(Duration::from_millis(60)).await;
        assert_eq!(circuit.state(), CircuitState::HalfOpen);

        // The trial hangs; nobody else goes through meanwhile.
        let mut trial = Box::pin(circuit.call(pending::<Result<(), &str>>(), |_| true));
        assert!((&mut trial).now_or_never().is_none());
        for _ in 0..100 {
            assert!(matches!(works(&circuit).await, Err(Broken::Open { .. })));
        }
        // Given up, it says nothing: the next one is the trial.
        drop(trial);
        assert!(works(&circuit).await.is_ok());
        assert_eq!(circuit.state(), CircuitState::Closed);
    }

    #[tokio::test]
    async fn what_does_not_speak_against_the_other_side_does_not_count() {
        let circuit = circuit();
        for _ in 0..10 {
            let refused = circuit.call(async { Err::<(), _>("no such room") }, |_| false).await;
            assert!(matches!(refused, Err(Broken::Failed(_))));
        }
        assert_eq!(circuit.state(), CircuitState::Closed);
    }

    #[tokio::test]
    async fn what_an_operator_says_goes() {
        let circuit = circuit();
        circuit.set_override(Some(Override::Open));
        assert!(matches!(works(&circuit).await, Err(Broken::Open { .. })));
        circuit.set_override(Some(Override::Closed));
        for _ in 0..10 {
            assert!(matches!(fails(&circuit).await, Err(Broken::Failed(_))));
        }
        circuit.set_override(None);
        assert!(works(&circuit).await.is_ok());
        assert_eq!(circuit.state(), CircuitState::Closed);
    }
}
