//! The stack that a bus has unless told otherwise.

use std::time::Duration;

use annals_eventstore::{
    EventStore,
    breaker::{BreakerOptions, CircuitBreaker},
};
use tower::ServiceBuilder;

use super::{
    Executor, PolicyLayer, Under,
    policy::{Breaking, Bulkhead, Idempotency, Keys, LoadShed, RateLimit, Retry, Timeout, Trace},
};

/// The standard stack, from the outside in.
pub type Standard = Under<
    Trace,
    Under<
        LoadShed,
        Under<
            RateLimit,
            Under<
                Idempotency,
                Under<Bulkhead, Under<Timeout, Under<Retry, Under<Breaking, Executor>>>>,
            >,
        >,
    >,
>;

/// The policies of the standard stack.
#[derive(Debug)]
#[non_exhaustive]
pub struct Policies {
    /// 4,096 commands under way.
    pub load_shed: LoadShed,
    /// 200 a second and client, 400 at once.
    pub rate_limit: RateLimit,
    /// Commands without a key get one.
    pub idempotency: Idempotency,
    /// 1,024 of each kind run, as many wait.
    pub bulkhead: Bulkhead,
    /// 10 seconds.
    pub timeout: Timeout,
    /// As [`Retry::default`].
    pub retry: Retry,
    /// The circuit `store`: 10 failures in a row open it for 1 s at first and 30 s at most; an attempt has 5 s.
    pub breaking: Breaking,
}

impl Default for Policies {
    fn default() -> Self {
        let options = BreakerOptions::default()
            .failures(10)
            .cool_down(Duration::from_secs(1), Duration::from_secs(30));
        let circuit = CircuitBreaker::new("store", options);
        Self {
            load_shed: LoadShed::new(4096),
            rate_limit: RateLimit::with_burst(200, 400),
            idempotency: Idempotency::new(Keys::Generated),
            bulkhead: Bulkhead::per_command(1024),
            timeout: Timeout::new(Duration::from_secs(10)),
            retry: Retry::default(),
            breaking: Breaking::new(circuit, Duration::from_secs(5)),
        }
    }
}

impl Policies {
    pub(super) fn over(self, store: &EventStore) -> Standard {
        ServiceBuilder::new()
            .layer(PolicyLayer::new(Trace))
            .layer(PolicyLayer::new(self.load_shed))
            .layer(PolicyLayer::new(self.rate_limit))
            .layer(PolicyLayer::new(self.idempotency))
            .layer(PolicyLayer::new(self.bulkhead))
            .layer(PolicyLayer::new(self.timeout))
            .layer(PolicyLayer::new(self.retry))
            .layer(PolicyLayer::new(self.breaking))
            .service(Executor::new(store))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bus::{Bus, BusError, Refusal, Request, policy::testing::Deposit};

    /// What the guide draws, from the outside in. Each place has a reason: what sheds is outside of what waits, one key
    /// is for all attempts, and the time limit is for all of them together.
    #[test]
    fn the_policies_are_in_the_order_that_the_guide_draws() {
        let all = std::any::type_name::<Standard>();
        let names: Vec<_> = all
            .split(['<', '>', ',', ' '])
            .filter_map(|path| path.rsplit("::").next())
            .filter(|name| !name.is_empty() && *name != "Under")
            .map(|name| match name {
                "LoadShed" => "load shed".to_owned(),
                "RateLimit" => "rate limit".to_owned(),
                "Breaking" => "circuit breaker".to_owned(),
                "Executor" => "store".to_owned(),
                other => other.to_lowercase(),
            })
            .collect();
        let guide = include_str!("../../docs/guide/command-bus.md");
        let drawn = guide.lines().find(|line| line.contains("─▶")).map(str::trim);
        assert_eq!(drawn, Some(names.join(" ─▶ ").as_str()));
    }

    /// A command that is refused for its missing key has taken of its client's rate: who sends many of them is limited, too.
    #[tokio::test]
    async fn rates_are_limited_before_keys_are_asked_for() {
        let policies = Policies {
            rate_limit: RateLimit::with_burst(1, 1),
            idempotency: Idempotency::new(Keys::Required),
            ..Policies::default()
        };
        let bus = Bus::with(policies, &EventStore::in_memory());
        let request = || Request::new(Deposit::any()).client("a");
        let first = bus.send(request()).await;
        assert!(matches!(first, Err(BusError::Refused(Refusal::NoKey { .. }))), "{first:?}");
        let second = bus.send(request()).await;
        let is_limited = matches!(second, Err(BusError::Refused(Refusal::RateLimited { .. })));
        assert!(is_limited, "{second:?}");
    }
}
