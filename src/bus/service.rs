//! The one service that all of the bus is made of, and how a policy becomes a layer of it.

use std::task::{Context, Poll};

use annals_eventstore::{Aggregate, Command, Committed, EventStore, Handle};
use futures::future::BoxFuture;
use tower::{Layer, Service};

use super::{BusError, Request};

/// What an aggregate refuses a command with.
pub type Rejection<C> = <<C as Command>::Aggregate as Aggregate>::Error;

/// What comes of a command.
pub type Response<C> = Result<Committed, BusError<Rejection<C>>>;

/// A service that takes commands of a type: the store at the bottom, and every layer above it.
///
/// It is not to be implemented: each service with these types is one.
pub trait Dispatch<C>:
    Service<Request<C>, Response = Committed, Error = BusError<Rejection<C>>, Future: Send>
    + Clone
    + Send
    + Sync
    + 'static
where
    C: Command,
    C::Aggregate: Handle<C>,
{
}

impl<S, C> Dispatch<C> for S
where
    S: Service<Request<C>, Response = Committed, Error = BusError<Rejection<C>>>,
    S::Future: Send,
    S: Clone + Send + Sync + 'static,
    C: Command,
    C::Aggregate: Handle<C>,
{
}

/// The bottom of every bus: executes commands on a store.
#[derive(Clone, Debug)]
pub struct Executor(EventStore);

impl Executor {
    /// On this store.
    pub fn new(store: &EventStore) -> Self {
        Self(store.clone())
    }
}

impl<C> Service<Request<C>> for Executor
where
    C: Command,
    C::Aggregate: Handle<C>,
{
    type Response = Committed;
    type Error = BusError<Rejection<C>>;
    type Future = BoxFuture<'static, Response<C>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<C>) -> Self::Future {
        let store = self.0.clone();
        Box::pin(async move { Ok(store.execute(request.envelope).await?) })
    }
}

/// What a layer does around each command, whatever its type.
///
/// Write your own to have a layer without the ceremony of tower; [`PolicyLayer`] makes one of it.
pub trait Policy: Send + Sync + 'static {
    /// Lets a command through to `inner`, or not, and passes on what comes of it.
    ///
    /// Call `inner` with `tower::ServiceExt::oneshot`; clone it to call it more than once.
    fn around<C, S>(
        &self,
        request: Request<C>,
        inner: S,
    ) -> impl Future<Output = Response<C>> + Send
    where
        C: Command,
        C::Aggregate: Handle<C>,
        S: Dispatch<C>;
}

/// A policy as a layer of tower. Clones share the policy's state.
#[derive(Debug)]
pub struct PolicyLayer<P>(std::sync::Arc<P>);

/// A service under a policy.
#[derive(Debug)]
pub struct Under<P, S> {
    policy: std::sync::Arc<P>,
    inner: S,
}

impl<P: Policy> PolicyLayer<P> {
    /// A layer of this policy.
    pub fn new(policy: P) -> Self {
        Self(std::sync::Arc::new(policy))
    }
}

impl<P> Clone for PolicyLayer<P> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<P, S: Clone> Clone for Under<P, S> {
    fn clone(&self) -> Self {
        Self { policy: self.policy.clone(), inner: self.inner.clone() }
    }
}

impl<P, S> Layer<S> for PolicyLayer<P> {
    type Service = Under<P, S>;

    fn layer(&self, inner: S) -> Self::Service {
        Under { policy: self.0.clone(), inner }
    }
}

impl<P, S, C> Service<Request<C>> for Under<P, S>
where
    P: Policy,
    S: Dispatch<C>,
    C: Command,
    C::Aggregate: Handle<C>,
{
    type Response = Committed;
    type Error = BusError<Rejection<C>>;
    type Future = BoxFuture<'static, Response<C>>;

    /// Always: what has to be waited for is waited for in the call, where it is known for which command.
    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<C>) -> Self::Future {
        let (policy, inner) = (self.policy.clone(), self.inner.clone());
        Box::pin(async move { policy.around(request, inner).await })
    }
}
