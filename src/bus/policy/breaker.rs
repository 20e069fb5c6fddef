//! Nothing for a store that does not work.

use std::time::Duration;

use annals_eventstore::{
    Command, Error, Handle,
    breaker::{Broken, CircuitBreaker},
};
use tower::ServiceExt;

use crate::bus::{BusError, Dispatch, Policy, Refusal, Request, Response};

/// Puts a [circuit breaker](annals_eventstore::breaker) around the store: after failures of its infrastructure
/// in a row, commands are refused at once for a while, and then one is let through to see.
///
/// What the domain rejects, conflicts, and what was refused before it reached the database say nothing about
/// the store. An attempt that takes longer than the limit counts as failed: a store that hangs is down too.
#[derive(Clone, Debug)]
pub struct Breaking {
    circuit: CircuitBreaker,
    limit: Duration,
}

impl Breaking {
    /// With this breaker, and a limit for each attempt.
    pub fn new(circuit: CircuitBreaker, limit: Duration) -> Self {
        Self { circuit, limit }
    }
}

impl Policy for Breaking {
    async fn around<C, S>(&self, request: Request<C>, inner: S) -> Response<C>
    where
        C: Command,
        C::Aggregate: Handle<C>,
        S: Dispatch<C>,
    {
        let waited = self.limit;
        let attempt = async {
            match tokio::time::timeout(waited, inner.oneshot(request)).await {
                Ok(response) => response,
                Err(_) => Err(Refusal::TimedOut { waited }.into()),
            }
        };
        match self.circuit.call(attempt, speaks_against_the_store).await {
            Ok(committed) => Ok(committed),
            Err(Broken::Failed(error)) => Err(error),
            Err(Broken::Open { circuit, retry_after }) => {
                Err(Refusal::CircuitOpen { circuit, retry_after }.into())
            }
            // There are no others in this version of the store.
            Err(_) => Err(BusError::Failed(Error::Closed)),
        }
    }
}

fn speaks_against_the_store<E>(error: &BusError<E>) -> bool {
    match error {
        BusError::Refused(refusal) => matches!(refusal, Refusal::TimedOut { .. }),
        BusError::Rejected(_) => false,
        BusError::Failed(error) => match error {
            Error::Connect { .. } | Error::Indeterminate { .. } | Error::TimedOut { .. } => true,
            Error::Database { retryable, .. } => *retryable,
            _ => false,
        },
    }
}

#[cfg(test)]
mod tests {
    use annals_eventstore::breaker::{BreakerOptions, CircuitState};

    use super::*;
    use crate::bus::policy::testing::{Deposit, Inner, bus};

    fn circuit() -> CircuitBreaker {
        let cool_down = Duration::from_secs(1);
        let options = BreakerOptions::default().failures(3).cool_down(cool_down, cool_down);
        CircuitBreaker::new("store", options)
    }

    #[tokio::test]
    async fn a_store_that_is_down_is_left_alone_and_tried_by_one() {
        let down = || Error::Connect { target: "db".to_owned(), source: "refused".into() };
        let (circuit, inner) = (circuit(), Inner::failing(3, down));
        let bus = bus(Breaking::new(circuit.clone(), Duration::from_secs(5)), &inner);
        for _ in 0..20 {
            bus.send(Deposit::any()).await.unwrap_err();
        }
        assert_eq!((inner.calls(), circuit.state()), (3, CircuitState::Open));
        while circuit.state() == CircuitState::Open {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        bus.send(Deposit::any()).await.unwrap();
        assert_eq!(circuit.state(), CircuitState::Closed);
    }

    #[tokio::test]
    async fn a_store_that_hangs_is_down() {
        let (circuit, inner) = (circuit(), Inner::slow());
        let bus = bus(Breaking::new(circuit.clone(), Inner::PAUSE / 10), &inner);
        for _ in 0..3 {
            bus.send(Deposit::any()).await.unwrap_err();
        }
        assert_eq!(circuit.state(), CircuitState::Open);
    }

    #[tokio::test]
    async fn rejections_say_nothing_about_the_store() {
        let (circuit, inner) = (circuit(), Inner::rejecting());
        let bus = bus(Breaking::new(circuit.clone(), Duration::from_secs(5)), &inner);
        for _ in 0..20 {
            bus.send(Deposit::any()).await.unwrap_err();
        }
        assert_eq!((inner.calls(), circuit.state()), (20, CircuitState::Closed));
    }
}
