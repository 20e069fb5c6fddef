//! A session with the broker, as the publisher's circuit breaker sees it.
//!
//! While the circuit is open there is no session, so that librdkafka does not connect by itself either. Its trial is
//! a whole session up to where it takes jobs: a broker may answer questions before it can do more.

use std::time::Duration;

use crate::breaker::{BreakerOptions, CircuitBreaker, CircuitState, Outcome, Permit};

/// The breaker of a publisher that was given none. So many questions without an answer take about ten seconds, so a
/// broker that restarts quickly is waited for within the session; it is asked often enough to be found soon.
pub(super) fn circuit_of(context: &str) -> CircuitBreaker {
    let options = BreakerOptions::default()
        .failures(3)
        .cool_down(Duration::from_secs(1), Duration::from_secs(3));
    CircuitBreaker::new(format!("publisher:{context}"), options)
}

/// The leave for a session. Dropped before it is decided, a trial was not made.
#[derive(Debug)]
pub(super) struct Passage {
    circuit: CircuitBreaker,
    trial: Option<Permit>,
}

impl Passage {
    /// Asks for it. The error is when it makes sense to ask again.
    pub(super) fn ask(circuit: &CircuitBreaker) -> Result<Self, Duration> {
        let trial = circuit.ask()?.filter(Permit::is_trial);
        Ok(Self { circuit: circuit.clone(), trial })
    }

    /// Whether it decides if the circuit closes.
    pub(super) fn is_trial(&self) -> bool {
        self.trial.is_some()
    }

    /// Whether nothing more is to be asked.
    pub(super) fn is_over(&self) -> bool {
        self.trial.is_none() && self.circuit.state() != CircuitState::Closed
    }

    /// The session has begun.
    pub(super) fn begun(&mut self) {
        if let Some(trial) = self.trial.take() {
            self.circuit.report(trial, Outcome::Success);
        }
    }

    /// The broker has acknowledged something.
    pub(super) fn acknowledged(&mut self) {
        self.note(Outcome::Success);
    }

    /// The broker did not answer, or not do what it was to do.
    pub(super) fn failed(&mut self) {
        self.note(Outcome::Failure);
    }

    fn note(&mut self, outcome: Outcome) {
        let permit = match self.trial.take() {
            Some(trial) => Some(trial),
            // It says nothing any more once the circuit is open.
            None if self.circuit.state() == CircuitState::Closed => {
                self.circuit.ask().ok().flatten()
            }
            None => None,
        };
        if let Some(permit) = permit {
            self.circuit.report(permit, outcome);
        }
    }
}

impl Drop for Passage {
    fn drop(&mut self) {
        if let Some(trial) = self.trial.take() {
            self.circuit.report(trial, Outcome::None);
        }
    }
}
