//! Why a command had no effect, or may have had none.

use std::time::Duration;

use annals_eventstore::{Error, ExecuteError};

/// Why a command that was sent over the bus was not done, or is not known to be.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BusError<E> {
    /// The aggregate refused the command. Trying again is no use.
    #[error("the command was rejected")]
    Rejected(#[source] E),
    /// The store failed.
    #[error(transparent)]
    Failed(Error),
    /// A policy of the bus did not let it through, or did not wait any longer.
    #[error(transparent)]
    Refused(#[from] Refusal),
}

/// Why a policy did not let a command through, or did not wait any longer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Refusal {
    /// Too many commands are under way. This one was not begun.
    #[error("too many commands are under way ({limit}); try again later")]
    Overloaded {
        /// How many there may be.
        limit: usize,
    },
    /// The client sends more than it may. The command was not begun.
    #[error("client {client:?} sends more than it may; try again in {retry_after:?}")]
    RateLimited {
        /// The client.
        client: String,
        /// When it may send again.
        retry_after: Duration,
    },
    /// The command has no idempotency key, and must have one. It was not begun.
    #[error("command {command:?} came without an idempotency key; send one")]
    NoKey {
        /// The command's name.
        command: &'static str,
    },
    /// The compartment that the command belongs to is full. It was not begun.
    #[error("{compartment:?} is full: {running} commands run and {waiting} wait; try again later")]
    Full {
        /// The compartment.
        compartment: String,
        /// How many may run at once.
        running: usize,
        /// How many may wait.
        waiting: usize,
    },
    /// Nobody waits any longer. The command may be done yet: to send it again with the same idempotency key
    /// settles it.
    #[error("no answer in {waited:?}; the same command with the same idempotency key settles it")]
    TimedOut {
        /// How long it had.
        waited: Duration,
    },
    /// What is behind the circuit breaker failed again and again. The command was not begun.
    #[error("the circuit {circuit:?} is open; try again in {retry_after:?}")]
    CircuitOpen {
        /// The circuit.
        circuit: String,
        /// When it makes sense to try again.
        retry_after: Duration,
    },
}

impl Refusal {
    /// When it makes sense to try again, if that is known.
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::RateLimited { retry_after, .. } | Self::CircuitOpen { retry_after, .. } => {
                Some(*retry_after)
            }
            _ => None,
        }
    }
}

impl<E> BusError<E> {
    /// True if the same command may succeed when it is sent again later, with the same idempotency key.
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::Rejected(_) | Self::Refused(Refusal::NoKey { .. }) => false,
            Self::Failed(error) => error.is_retryable() || matches!(error, Error::Conflict { .. }),
            Self::Refused(_) => true,
        }
    }
}

impl<E> From<ExecuteError<E>> for BusError<E> {
    fn from(error: ExecuteError<E>) -> Self {
        match error {
            ExecuteError::Rejected(error) => Self::Rejected(error),
            ExecuteError::Failed(error) => Self::Failed(error),
            // There are no others in this version of the store.
            _ => Self::Failed(Error::Closed),
        }
    }
}
