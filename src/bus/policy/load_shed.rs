//! No more at once than can be dealt with.

use annals_eventstore::{Command, Handle};
use tokio::sync::Semaphore;
use tower::ServiceExt;

use crate::bus::{Dispatch, Policy, Refusal, Request, Response, metrics::IN_FLIGHT};

/// Lets a limited number of commands in and refuses the rest at once, so that those inside keep their latency
/// and memory stays bounded: who is refused can try elsewhere or later, who waits in a long queue is answered
/// when nobody listens any more.
///
/// The gauge `annals_commands_in_flight` shows how many are inside.
#[derive(Debug)]
pub struct LoadShed {
    limit: usize,
    places: Semaphore,
}

impl LoadShed {
    /// Lets in so many at once.
    pub fn new(limit: usize) -> Self {
        let limit = limit.clamp(1, Semaphore::MAX_PERMITS);
        Self { limit, places: Semaphore::new(limit) }
    }
}

impl Policy for LoadShed {
    async fn around<C, S>(&self, request: Request<C>, inner: S) -> Response<C>
    where
        C: Command,
        C::Aggregate: Handle<C>,
        S: Dispatch<C>,
    {
        let Ok(_place) = self.places.try_acquire() else {
            return Err(Refusal::Overloaded { limit: self.limit }.into());
        };
        let _counted = Counted::in_gauge(&metrics::gauge!(IN_FLIGHT.name));
        inner.oneshot(request).await
    }
}

/// One more in a gauge, until it is dropped.
pub(super) struct Counted(metrics::Gauge);

impl Counted {
    pub(super) fn in_gauge(gauge: &metrics::Gauge) -> Self {
        gauge.increment(1.0);
        Self(gauge.clone())
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.decrement(1.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bus::policy::testing::{Inner, bus, outcomes};

    #[tokio::test]
    async fn what_is_too_much_is_refused_at_once_and_the_rest_is_done() {
        let inner = Inner::slow();
        let bus = bus(LoadShed::new(3), &inner);
        let (done, refused) = outcomes(&bus, 10).await;
        assert_eq!((done, refused.len()), (3, 7));
        assert!(refused.iter().all(|refusal| *refusal == Refusal::Overloaded { limit: 3 }));
        // There is room again, also after callers that gave up.
        for _ in 0..10 {
            let given_up = tokio::time::timeout(Inner::PAUSE / 5, inner.send_over(&bus));
            assert!(given_up.await.is_err());
        }
        assert_eq!(outcomes(&bus, 3).await.0, 3);
    }
}
