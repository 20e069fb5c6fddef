//! No more from one client than is its due.

use std::{
    num::NonZeroU32,
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

use annals_eventstore::{Command, Handle};
use governor::{DefaultKeyedRateLimiter, Quota, clock::Clock as _};
use tower::ServiceExt;

use crate::bus::{Dispatch, Policy, Refusal, Request, Response};

/// Clients whose buckets are full again are forgotten after so many commands.
const SWEEP_EVERY: u32 = 10_000;

/// What happens to a command above the limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum OnLimit {
    /// It is refused.
    Reject,
    /// It waits for its turn, unless that takes longer than this.
    Wait(Duration),
}

/// Limits the rate of each client by a token bucket (the generic cell rate algorithm of the crate `governor`):
/// so many commands a second in the long run, and so many at once after a pause.
///
/// Commands without a [client](crate::bus::Origin::client) come from inside and are not limited.
#[derive(Debug)]
pub struct RateLimit {
    limiter: DefaultKeyedRateLimiter<String>,
    on_limit: OnLimit,
    until_sweep: AtomicU32,
}

impl RateLimit {
    /// So many commands per second and client, and the same number at once; one at least. Above that they are
    /// refused.
    pub fn per_second(commands: u32) -> Self {
        let commands = NonZeroU32::new(commands).unwrap_or(NonZeroU32::MIN);
        Self::of(Quota::per_second(commands))
    }

    /// So many commands per second and client in the long run, and so many at once; one at least of each.
    pub fn with_burst(per_second: u32, burst: u32) -> Self {
        let [per_second, burst] =
            [per_second, burst].map(|n| NonZeroU32::new(n).unwrap_or(NonZeroU32::MIN));
        Self::of(Quota::per_second(per_second).allow_burst(burst))
    }

    fn of(quota: Quota) -> Self {
        Self {
            limiter: DefaultKeyedRateLimiter::keyed(quota),
            on_limit: OnLimit::Reject,
            until_sweep: AtomicU32::new(SWEEP_EVERY),
        }
    }

    /// Sets what happens above the limit.
    #[must_use]
    pub fn on_limit(mut self, on_limit: OnLimit) -> Self {
        self.on_limit = on_limit;
        self
    }

    /// Takes a token of a client.
    pub(crate) async fn take(&self, client: &String) -> Result<(), Refusal> {
        if self.until_sweep.fetch_sub(1, Ordering::Relaxed) == 1 {
            self.until_sweep.store(SWEEP_EVERY, Ordering::Relaxed);
            self.limiter.retain_recent();
            self.limiter.shrink_to_fit();
        }
        let mut left = match self.on_limit {
            OnLimit::Reject => Duration::ZERO,
            OnLimit::Wait(patience) => patience,
        };
        loop {
            let Err(not_yet) = self.limiter.check_key(client) else { return Ok(()) };
            let wait = not_yet.wait_time_from(self.limiter.clock().now());
            if wait > left {
                return Err(Refusal::RateLimited { client: client.clone(), retry_after: wait });
            }
            left -= wait;
            tokio::time::sleep(wait).await;
        }
    }
}

impl Policy for RateLimit {
    async fn around<C, S>(&self, request: Request<C>, inner: S) -> Response<C>
    where
        C: Command,
        C::Aggregate: Handle<C>,
        S: Dispatch<C>,
    {
        if let Some(client) = &request.origin.client {
            self.take(client).await?;
        }
        inner.oneshot(request).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bus::policy::testing::{Deposit, Inner, bus};

    #[tokio::test]
    async fn each_client_has_a_bucket_and_a_greedy_one_harms_no_other() {
        let inner = Inner::quick();
        let bus = bus(RateLimit::with_burst(1, 5), &inner);
        let request = |client: &str| Request::new(Deposit::any()).client(client);
        for _ in 0..5 {
            bus.send(request("greedy")).await.unwrap();
        }
        let refused = bus.send(request("greedy")).await.unwrap_err();
        let crate::bus::BusError::Refused(refusal) = refused else { panic!("{refused:?}") };
        let wait = refusal.retry_after().unwrap();
        assert!(Duration::ZERO < wait && wait <= Duration::from_secs(1), "{wait:?}");
        bus.send(request("modest")).await.unwrap();
        for _ in 0..20 {
            bus.send(Deposit::any()).await.unwrap();
        }
    }

    #[tokio::test]
    async fn who_may_wait_gets_through_at_the_rate() {
        let inner = Inner::quick();
        let policy = RateLimit::with_burst(50, 1).on_limit(OnLimit::Wait(Duration::from_secs(10)));
        let bus = bus(policy, &inner);
        let began = std::time::Instant::now();
        for _ in 0..6 {
            bus.send(Request::new(Deposit::any()).client("patient")).await.unwrap();
        }
        assert!(began.elapsed() >= Duration::from_millis(90), "{:?}", began.elapsed());
    }
}
