//! Again, later, and not too often.

use std::{fmt, time::Duration};

use annals_eventstore::{Command, Error, Handle};
use backon::{BackoffBuilder, ExponentialBuilder};
use rand::Rng;
use tower::{
    ServiceExt,
    retry::budget::{Budget, TpsBudget},
};

use crate::bus::{BusError, Dispatch, Policy, Request, Response, metrics::RETRIES};

/// Tries a command again after a failure that may pass: a lost connection, a server that restarts, a conflict
/// that outlasted the store's own attempts. Never after a rejection, never after a refusal of another policy,
/// and after an answer that did not come only under an idempotency key.
///
/// Between the attempts it waits a random time between nothing and a limit that doubles ("full jitter":
/// M. Brooker, Exponential Backoff And Jitter, 2015), so that those that failed together do not come back
/// together. And it has a budget: when most commands fail, trying each again would multiply the load that keeps
/// the other side down. The metric `annals_command_retries_total` has the label `outcome`: retried, or
/// out_of_budget.
pub struct Retry {
    delays: ExponentialBuilder,
    budget: TpsBudget,
}

impl fmt::Debug for Retry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Retry").field("delays", &self.delays).finish_non_exhaustive()
    }
}

impl Default for Retry {
    /// Two more attempts, after up to 50 and 100 ms; a tenth of the commands of the last ten seconds, and one
    /// a second besides, may be tried again.
    fn default() -> Self {
        Self::new(2, Duration::from_millis(50), Duration::from_secs(2))
    }
}

impl Retry {
    /// So many more attempts, after delays that double from the first limit up to the last.
    pub fn new(attempts: usize, first: Duration, last: Duration) -> Self {
        let delays = ExponentialBuilder::default()
            .with_min_delay(first)
            .with_max_delay(last.max(first))
            .with_max_times(attempts);
        // What has not happened yet is zero, and not unknown.
        for outcome in ["retried", "out_of_budget"] {
            metrics::counter!(RETRIES.name, "outcome" => outcome).increment(0);
        }
        Self { delays, budget: budget(0.1, 1) }
    }

    /// Sets the budget: this share of the commands of the last ten seconds may be tried again (0 to 1000), and
    /// so many a second besides.
    #[must_use]
    pub fn budget(mut self, share: f32, per_second: u32) -> Self {
        self.budget = budget(share.clamp(0.0, 1000.0), per_second);
        self
    }
}

fn budget(share: f32, per_second: u32) -> TpsBudget {
    TpsBudget::new(Duration::from_secs(10), per_second, share)
}

impl Policy for Retry {
    async fn around<C, S>(&self, request: Request<C>, inner: S) -> Response<C>
    where
        C: Command,
        C::Aggregate: Handle<C>,
        S: Dispatch<C>,
    {
        self.budget.deposit();
        let mut delays = self.delays.build();
        loop {
            let error = match inner.clone().oneshot(request.clone()).await {
                Ok(committed) => return Ok(committed),
                Err(error) => error,
            };
            if !helps(&error, &request) {
                return Err(error);
            }
            let Some(limit) = delays.next() else { return Err(error) };
            if !self.budget.withdraw() {
                metrics::counter!(RETRIES.name, "outcome" => "out_of_budget").increment(1);
                return Err(error);
            }
            metrics::counter!(RETRIES.name, "outcome" => "retried").increment(1);
            tracing::debug!(command = C::NAME, %error, "trying a command again");
            let delay = limit.mul_f64(rand::rng().random_range(0.0..=1.0));
            tokio::time::sleep(delay).await;
        }
    }
}

/// True if trying again is safe and may help.
fn helps<C, E>(error: &BusError<E>, request: &Request<C>) -> bool {
    let BusError::Failed(error) = error else { return false };
    match error {
        Error::Conflict { .. } => request.envelope.expected_version.is_none(),
        Error::Indeterminate { .. } => request.envelope.idempotency_key.is_some(),
        error => error.is_retryable(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bus::policy::testing::{Deposit, Inner, bus};

    fn retry() -> Retry {
        Retry::new(2, Duration::from_millis(1), Duration::from_millis(2)).budget(1000.0, 1000)
    }

    #[tokio::test]
    async fn what_may_pass_is_tried_again_and_what_does_not_is_not() {
        let transient = || Error::KeyInFlight;
        let inner = Inner::failing(2, transient);
        bus(retry(), &inner).send(Deposit::any()).await.unwrap();
        assert_eq!(inner.calls(), 3);

        let inner = Inner::failing(3, transient);
        bus(retry(), &inner).send(Deposit::any()).await.unwrap_err();
        assert_eq!(inner.calls(), 3);

        let inner = Inner::failing(1, || Error::Closed);
        bus(retry(), &inner).send(Deposit::any()).await.unwrap_err();
        assert_eq!(inner.calls(), 1);

        let inner = Inner::rejecting();
        bus(retry(), &inner).send(Deposit::any()).await.unwrap_err();
        assert_eq!(inner.calls(), 1);
    }

    #[tokio::test]
    async fn an_answer_that_did_not_come_is_asked_for_again_under_a_key_only() {
        let unknown = || Error::Indeterminate { source: "cut".into() };
        let inner = Inner::failing(1, unknown);
        bus(retry(), &inner).send(Deposit::any()).await.unwrap_err();
        assert_eq!(inner.calls(), 1);

        let inner = Inner::failing(1, unknown);
        let request = Request::new(Deposit::any()).idempotency_key("k");
        bus(retry(), &inner).send(request).await.unwrap();
        assert_eq!(inner.calls(), 2);
    }

    /// Without a budget, 400 calls would become 1,200.
    #[tokio::test]
    async fn an_outage_is_not_multiplied() {
        let inner = Inner::failing(usize::MAX, || Error::KeyInFlight);
        let bus = bus(retry().budget(0.1, 0), &inner);
        for _ in 0..400 {
            bus.send(Deposit::any()).await.unwrap_err();
        }
        assert!((400..=480).contains(&inner.calls()), "{}", inner.calls());
        assert!(inner.calls() > 400, "nothing was tried again");
    }
}
