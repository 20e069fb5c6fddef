//! What ends a term, and how the next one comes about.

use std::time::Duration;

use backon::{BackoffBuilder, ExponentialBackoff, ExponentialBuilder};
use tokio::time::{Instant, sleep, timeout_at};

use super::producer::Failure;
use crate::{
    error::{Error, chain},
    postgres::Lease,
};

/// Why a term ended, other than that the publisher was told to stop.
pub(super) enum Ended {
    /// Another publisher has taken over.
    Fenced,
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
            // Only a dropped producer is told so.
            Failure::Abandoned => Self::Failed(Error::Closed),
        }
    }
}

/// Renews a lease for as long as that succeeds in time.
pub(super) async fn keep(lease: &Lease, time_to_live: Duration) -> Error {
    let mut renewed = Instant::now();
    loop {
        sleep(lease.renewal_interval()).await;
        let asked = Instant::now();
        match timeout_at(renewed + time_to_live, lease.renew()).await {
            Ok(Ok(())) => renewed = asked,
            Ok(Err(error)) if error.is_retryable() => {
                tracing::debug!(error = chain(&error), "cannot renew the lease");
            }
            Ok(Err(error)) => return error,
            Err(elapsed) => {
                let action = "renew the publisher's lease in time";
                let source = Box::new(elapsed);
                return Error::Database { action, source, retryable: true };
            }
        }
    }
}

/// The pauses between terms that come to nothing.
pub(super) fn delays() -> ExponentialBackoff {
    ExponentialBuilder::default()
        .with_min_delay(Duration::from_millis(100))
        .with_max_delay(Duration::from_secs(5))
        .without_max_times()
        .with_jitter()
        .build()
}
