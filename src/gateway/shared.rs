//! What all routes share.

use std::{sync::Arc, time::Duration};

use annals_eventstore::{EventStore, Metadata, Position, trace};
use annals_projections::{ProjectionError, Query, QueryCache, QueryReadModels, ReadModel};
use futures::future::BoxFuture;
use http::{HeaderMap, request::Parts};

use super::{Access, Authenticate, Identity, live::Live, problem::Problem};
use crate::bus::{Bus, policy::RateLimit};

pub(super) struct Shared<S> {
    pub(super) store: EventStore,
    pub(super) cache: Option<QueryCache>,
    pub(super) bus: Bus<S>,
    pub(super) authenticate: Arc<dyn Authenticate>,
    /// Of each client, whatever it asks for.
    pub(super) rate_limit: Option<RateLimit>,
    pub(super) live: Live,
    /// The read models of the gateway, to wait for.
    pub(super) read_models: Vec<Waiter>,
    pub(super) document: String,
}

/// Waits for a read model.
pub(super) struct Waiter {
    pub(super) categories: Vec<&'static str>,
    wait: fn(EventStore, Position, Duration) -> BoxFuture<'static, Result<(), ProjectionError>>,
}

impl Waiter {
    pub(super) fn of<R: ReadModel>() -> Self {
        Self {
            categories: R::sources().iter().map(|source| source.category()).collect(),
            wait: |store, position, timeout| {
                Box::pin(async move { store.query::<R>().wait_for(position, timeout).await })
            },
        }
    }
}

impl<S> Shared<S> {
    /// A query, whose answer comes from the cache if there is one.
    pub(super) fn query<R: ReadModel>(&self) -> Query<'_, R> {
        match &self.cache {
            Some(cache) => cache.query(),
            None => self.store.query(),
        }
    }

    /// Who sent a request. Fails if that client sends more than it may.
    pub(super) async fn identify(&self, parts: &Parts) -> Result<Identity, Problem> {
        let who = self.authenticate.authenticate(parts).await?;
        if let Some(limit) = &self.rate_limit {
            limit.take(&who.client).await?;
        }
        Ok(who)
    }

    /// Fails if they may not do this.
    pub(super) async fn authorize(&self, who: &Identity, access: Access) -> Result<(), Problem> {
        Ok(self.authenticate.authorize(who, &access).await?)
    }

    /// Waits until the read models that a category feeds show everything up to a position. False if they do
    /// not in time.
    pub(super) async fn shown(
        &self,
        category: &str,
        position: Position,
        timeout: Duration,
    ) -> Result<bool, Problem> {
        let fed = self.read_models.iter().filter(|waiter| waiter.categories.contains(&category));
        let all = fed.map(|waiter| (waiter.wait)(self.store.clone(), position, timeout));
        for outcome in futures::future::join_all(all).await {
            match outcome {
                Ok(()) => {}
                Err(ProjectionError::TimedOut { .. }) => return Ok(false),
                Err(error) => return Err(error.into()),
            }
        }
        Ok(true)
    }
}

/// What is recorded with the events of a request.
pub(super) fn metadata(headers: &HeaderMap, who: &Identity) -> Metadata {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    let mut metadata = Metadata::new();
    metadata.actor = who.actor.clone();
    metadata.correlation_id = text("x-request-id").map(str::to_owned);
    // Where traces are recorded here, the events will bear the span of the command.
    metadata.traceparent = match trace::current() {
        Some(_) => None,
        None => traceparent(headers),
    };
    metadata
}

/// The caller's trace context, 00-{trace}-{span}-{flags}. What is no such thing is left out rather than passed on.
pub(super) fn traceparent(headers: &HeaderMap) -> Option<String> {
    let parent = headers.get("traceparent")?.to_str().ok()?;
    is_traceparent(parent).then(|| parent.to_owned())
}

/// True for the trace context of version 00 of the W3C's recommendation.
fn is_traceparent(text: &str) -> bool {
    let is_hex = |part: &str, length| {
        part.len() == length && part.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
    };
    let parts: Vec<_> = text.split('-').collect();
    matches!(parts[..], ["00", trace, span, flags]
        if is_hex(trace, 32) && is_hex(span, 16) && is_hex(flags, 2))
}
