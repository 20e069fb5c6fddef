//! An answer in time, or none.

use std::time::Duration;

use annals_eventstore::{Command, Handle};
use tower::ServiceExt;

use crate::bus::{Dispatch, Policy, Refusal, Request, Response};

/// Waits for an answer up to a limit, or as long as the caller does if that is
/// [shorter](crate::bus::Origin::patience).
///
/// What was begun may be done all the same: the same command with the same idempotency key settles it.
#[derive(Clone, Copy, Debug)]
pub struct Timeout(Duration);

impl Timeout {
    /// Waits so long at most.
    pub fn new(limit: Duration) -> Self {
        Self(limit)
    }
}

impl Policy for Timeout {
    async fn around<C, S>(&self, request: Request<C>, inner: S) -> Response<C>
    where
        C: Command,
        C::Aggregate: Handle<C>,
        S: Dispatch<C>,
    {
        let waited = request.origin.patience.map_or(self.0, |patience| patience.min(self.0));
        match tokio::time::timeout(waited, inner.oneshot(request)).await {
            Ok(response) => response,
            Err(_) => Err(Refusal::TimedOut { waited }.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bus::{
        BusError,
        policy::testing::{Deposit, Inner, bus},
    };

    #[tokio::test]
    async fn the_shorter_of_two_limits_holds() {
        let inner = Inner::slow();
        let bus = bus(Timeout::new(Duration::from_secs(60)), &inner);
        bus.send(Deposit::any()).await.unwrap();
        let waited = Inner::PAUSE / 10;
        let late = bus.send(Request::new(Deposit::any()).patience(waited)).await;
        let Err(BusError::Refused(refusal)) = late else { panic!("{late:?}") };
        assert_eq!(refusal, Refusal::TimedOut { waited });
    }
}
