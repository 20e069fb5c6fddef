//! A bus with one policy over a service that does as it is told.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use annals_eventstore::{Aggregate, Apply, Command, Committed, Error, Event, EventStore, Handle};
use futures::future::BoxFuture;
use serde::{Deserialize, Serialize};
use tower::{Layer, Service};

use crate::bus::{
    Bus, BusError, Executor, Policy, PolicyLayer, Refusal, Rejection, Request, Response, Under,
};

#[derive(Event, Serialize, Deserialize)]
pub(crate) enum AccountEvent {
    Deposited { amount: i64 },
}

#[derive(Aggregate, Default)]
#[aggregate(category = "account", event = AccountEvent, error = Refused)]
pub(crate) struct Account;

#[derive(Debug, thiserror::Error)]
#[error("no")]
pub(crate) struct Refused;

impl Apply<AccountEvent> for Account {
    fn apply(&mut self, _: &AccountEvent) {}
}

#[derive(Command, Serialize, Clone)]
#[command(aggregate = Account)]
pub(crate) struct Deposit {
    #[command(id)]
    account: String,
    amount: i64,
}

impl Deposit {
    pub(crate) fn any() -> Self {
        Self::of(1)
    }

    pub(crate) fn of(amount: i64) -> Self {
        Self { account: "ada".to_owned(), amount }
    }
}

impl Handle<Deposit> for Account {
    fn handle(&self, command: Deposit) -> Result<Vec<AccountEvent>, Refused> {
        if command.amount < 0 {
            return Err(Refused);
        }
        Ok(vec![AccountEvent::Deposited { amount: command.amount }])
    }
}

/// What a call does before it is executed in memory.
#[derive(Clone)]
pub(crate) struct Inner {
    executor: Executor,
    behaviour: Behaviour,
    seen: Arc<Seen>,
}

#[derive(Clone)]
enum Behaviour {
    Quick,
    Slow,
    HangsFor(&'static str),
    Fails(usize, fn() -> Error),
    Rejects,
}

#[derive(Default)]
struct Seen {
    calls: AtomicUsize,
    running: AtomicUsize,
    most: AtomicUsize,
}

impl Inner {
    /// How long a slow one takes.
    pub(crate) const PAUSE: Duration = Duration::from_millis(200);

    fn new(behaviour: Behaviour) -> Self {
        let executor = Executor::new(&EventStore::in_memory());
        Self { executor, behaviour, seen: Arc::default() }
    }

    pub(crate) fn quick() -> Self {
        Self::new(Behaviour::Quick)
    }

    pub(crate) fn slow() -> Self {
        Self::new(Behaviour::Slow)
    }

    /// Hangs for one tenant.
    pub(crate) fn hanging_for(tenant: &'static str) -> Self {
        Self::new(Behaviour::HangsFor(tenant))
    }

    /// Fails so many times at first.
    pub(crate) fn failing(times: usize, error: fn() -> Error) -> Self {
        Self::new(Behaviour::Fails(times, error))
    }

    pub(crate) fn rejecting() -> Self {
        Self::new(Behaviour::Rejects)
    }

    pub(crate) fn calls(&self) -> usize {
        self.seen.calls.load(Ordering::SeqCst)
    }

    pub(crate) fn most_at_once(&self) -> usize {
        self.seen.most.load(Ordering::SeqCst)
    }

    pub(crate) async fn wait_for_calls(&self, calls: usize) {
        let all = async {
            while self.calls() < calls {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(30), all).await.expect("so many calls");
    }

    pub(crate) async fn send_over<P: Policy>(&self, bus: &Bus<Under<P, Self>>) {
        let _ = bus.send(Deposit::any()).await;
    }
}

impl<C> Service<Request<C>> for Inner
where
    C: Command,
    C::Aggregate: Handle<C>,
    Rejection<C>: From<Refused>,
{
    type Response = Committed;
    type Error = BusError<Rejection<C>>;
    type Future = BoxFuture<'static, Response<C>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<C>) -> Self::Future {
        let mut this = self.clone();
        Box::pin(async move {
            let before = this.seen.calls.fetch_add(1, Ordering::SeqCst);
            let _running = Running::new(&this.seen);
            match this.behaviour {
                Behaviour::Quick => {}
                Behaviour::Slow => tokio::time::sleep(Self::PAUSE).await,
                Behaviour::HangsFor(tenant) => {
                    if request.origin.tenant.as_deref() == Some(tenant) {
                        std::future::pending::<()>().await;
                    }
                }
                Behaviour::Fails(times, error) if before < times => {
                    return Err(BusError::Failed(error()));
                }
                Behaviour::Fails(..) => {}
                Behaviour::Rejects => return Err(BusError::Rejected(Refused.into())),
            }
            this.executor.call(request).await
        })
    }
}

struct Running<'a>(&'a Seen);

impl<'a> Running<'a> {
    fn new(seen: &'a Seen) -> Self {
        let running = seen.running.fetch_add(1, Ordering::SeqCst) + 1;
        seen.most.fetch_max(running, Ordering::SeqCst);
        Self(seen)
    }
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.0.running.fetch_sub(1, Ordering::SeqCst);
    }
}

/// A bus with one policy.
pub(crate) fn bus<P: Policy>(policy: P, inner: &Inner) -> Bus<Under<P, Inner>> {
    Bus::over(PolicyLayer::new(policy).layer(inner.clone()))
}

/// Sends so many commands at once: how many were done, and the refusals.
pub(crate) async fn outcomes<P: Policy>(
    bus: &Bus<Under<P, Inner>>,
    commands: usize,
) -> (usize, Vec<Refusal>) {
    let all = (0..commands).map(|_| bus.send(Deposit::any()));
    let (mut done, mut refused) = (0, Vec::new());
    for outcome in futures::future::join_all(all).await {
        match outcome {
            Ok(_) => done += 1,
            Err(BusError::Refused(refusal)) => refused.push(refusal),
            Err(error) => panic!("{error:?}"),
        }
    }
    (done, refused)
}
