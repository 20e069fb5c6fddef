//! What ends a term, and how the next one comes about.

use std::time::Duration;

use super::producer::Failure;
use crate::{backoff::Waits, error::Error};

/// Why a term ended, other than that the publisher was told to stop.
pub(super) enum Ended {
    /// Another publisher has taken over.
    Fenced,
    /// The circuit was open for a while, and is not any more.
    Resumed,
    /// The circuit is open, for this reason.
    Open(String),
    /// Starting over may help.
    Interrupted(Error),
    /// It will not.
    Failed(Error),
}

impl From<Error> for Ended {
    fn from(error: Error) -> Self {
        match error {
            Error::Fenced { .. } => Self::Fenced,
            error if error.is_retryable() => Self::Interrupted(error),
            error => Self::Failed(error),
        }
    }
}

impl From<Failure> for Ended {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Interrupted(error) => Self::Interrupted(error),
            Failure::Refused(error) => Self::Failed(error),
            Failure::Fenced => Self::Fenced,
            Failure::Open(reason) => Self::Open(reason),
            // Only a dropped producer is told so.
            Failure::Abandoned => Self::Failed(Error::Closed),
        }
    }
}

/// The pauses between terms that come to nothing. Never none at all: a term takes the lease and fences.
pub(super) fn delays() -> Waits {
    Waits::half(Duration::from_millis(100), Duration::from_secs(5))
}
