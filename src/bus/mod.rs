//! The command bus: what happens to a command between whoever sends it and the store.
//!
//! A store executes commands. A service that the world can reach needs more: limits, so that no caller and no
//! kind of command takes all there is; an end to waiting; another try after a failure that passes; a key, so
//! that another try is safe; and a trace of it all. Each of these is a [policy], each policy is a layer
//! of [tower], and the layers make one service:
//!
//! ```
//! # use annals::{Aggregate, Apply, Command, Event, EventStore, Handle};
//! # use serde::{Deserialize, Serialize};
//! # #[derive(Event, Serialize, Deserialize)]
//! # enum AccountEvent { Deposited { amount: i64 } }
//! # #[derive(Aggregate, Default)]
//! # #[aggregate(category = "account", event = AccountEvent)]
//! # struct Account { balance: i64 }
//! # impl Apply<AccountEvent> for Account { fn apply(&mut self, _: &AccountEvent) {} }
//! # #[derive(Command, Serialize, Clone)]
//! # #[command(aggregate = Account)]
//! # struct Deposit { #[command(id)] account: String, amount: i64 }
//! # impl Handle<Deposit> for Account {
//! #     fn handle(&self, command: Deposit) -> Result<Vec<AccountEvent>, Self::Error> {
//! #         Ok(vec![AccountEvent::Deposited { amount: command.amount }])
//! #     }
//! # }
//! use annals::bus::{Bus, Request};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let store = EventStore::in_memory();
//! let bus = Bus::new(&store);
//! let deposit = Deposit { account: "ada".into(), amount: 100 };
//! let request = Request::new(deposit).client("mobile-app").idempotency_key("2b1f");
//! let committed = bus.send(request.clone()).await?;
//! // The answer was lost; the same key leads to the same outcome.
//! let again = bus.send(request).await?;
//! assert_eq!((again.position, again.replayed), (committed.position, true));
//! # Ok(()) }
//! ```
//!
//! # The standard stack
//! From the outside in: trace, load shed, rate limit, idempotency, bulkhead, timeout, retry, circuit breaker,
//! store. The order matters. What is refused is refused before it has cost anything, and is traced. The key is
//! set above the retries, so that all attempts have the same one. A command waits for a place in its
//! compartment without using up its time. All attempts together have one time limit. The breaker sees each
//! attempt, and an open one is no reason for another attempt.
//!
//! [`Bus::with`] sets the policies' figures. For another stack, put layers of any kind over an [`Executor`]:
//!
//! ```
//! use std::time::Duration;
//!
//! use annals::{EventStore, bus::{Bus, Executor, PolicyLayer, policy::{Timeout, Trace}}};
//! use tower::ServiceBuilder;
//!
//! # let store = EventStore::in_memory();
//! let stack = ServiceBuilder::new()
//!     .layer(PolicyLayer::new(Trace::default()))
//!     .layer(PolicyLayer::new(Timeout::new(Duration::from_secs(2))))
//!     .service(Executor::new(&store));
//! let bus = Bus::over(stack);
//! ```

mod error;
mod metrics;
pub mod policy;
mod request;
mod service;
mod standard;

use annals_eventstore::{Command, EventStore, Handle, metrics::Metric};
use tower::ServiceExt;

pub(crate) use self::metrics::METRICS;
pub use self::{
    error::{BusError, Refusal},
    request::{Origin, Request},
    service::{Dispatch, Executor, Policy, PolicyLayer, Rejection, Response, Under},
    standard::{Policies, Standard},
};

/// Takes commands of all types and sends them through a stack of layers to the store. Clones share the state
/// of the policies.
#[derive(Clone, Debug)]
pub struct Bus<S = Standard> {
    service: S,
}

impl Bus {
    /// The [standard stack](self#the-standard-stack) over a store.
    pub fn new(store: &EventStore) -> Self {
        Self::with(Policies::default(), store)
    }

    /// The standard stack with figures of one's own.
    pub fn with(policies: Policies, store: &EventStore) -> Self {
        Self::over(policies.over(store))
    }
}

impl<S> Bus<S> {
    /// A stack of one's own. Its service takes the commands that it is a [`Dispatch`] of.
    pub fn over(service: S) -> Self {
        METRICS.iter().for_each(Metric::describe);
        Self { service }
    }

    /// Sends a command: bare, in an envelope, or as a [`Request`], and waits for what comes of it.
    ///
    /// Dropping the future does not call the command back, if it has come to the store.
    ///
    /// # Errors
    /// [`BusError::Rejected`] with the domain's reason, [`BusError::Failed`] with the store's,
    /// [`BusError::Refused`] if a policy did not let it through or did not wait any longer.
    pub async fn send<C>(&self, request: impl Into<Request<C>>) -> Response<C>
    where
        C: Command,
        C::Aggregate: Handle<C>,
        S: Dispatch<C>,
    {
        self.service.clone().oneshot(request.into()).await
    }
}
