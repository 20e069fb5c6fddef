//! How far a read model has come, watched once for all who listen.

use std::{
    marker::PhantomData,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use annals_eventstore::{EventStore, Position};
use annals_projections::{QueryReadModels, ReadModel};
use axum::extract::FromRequestParts;
use http::request::Parts;
use tokio::sync::watch;

/// Between two looks, while somebody listens.
const INTERVAL: Duration = Duration::from_millis(50);

/// Watches one read model. Clones share the watch.
pub(super) struct Follow<R> {
    position: Arc<Mutex<Option<watch::Sender<Option<Position>>>>>,
    read_model: PhantomData<fn() -> R>,
}

impl<R> Clone for Follow<R> {
    fn clone(&self) -> Self {
        Self { position: self.position.clone(), read_model: PhantomData }
    }
}

impl<R: ReadModel> Follow<R> {
    pub(super) fn new() -> Self {
        Self { position: Arc::default(), read_model: PhantomData }
    }

    /// The position, and whenever it moves; none until it is known.
    pub(super) fn subscribe(&self, store: &EventStore) -> watch::Receiver<Option<Position>> {
        // It is whole after each assignment, wherever a panic happens.
        let mut position = self.position.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(sender) = &*position {
            return sender.subscribe();
        }
        let (sender, receiver) = watch::channel(None);
        *position = Some(sender);
        tokio::spawn(self.clone().watch(store.clone()));
        receiver
    }

    /// Looks as long as somebody listens.
    async fn watch(self, store: EventStore) {
        loop {
            let reached = store.query::<R>().reached().await;
            {
                let mut position = self.position.lock().unwrap_or_else(PoisonError::into_inner);
                let Some(sender) = &*position else { return };
                if sender.receiver_count() == 0 {
                    *position = None;
                    return;
                }
                // What fails is tried again.
                if let Ok(reached @ Some(_)) = reached {
                    sender.send_if_modified(|position| {
                        let moved = *position != reached;
                        *position = reached;
                        moved
                    });
                }
            }
            tokio::time::sleep(INTERVAL).await;
        }
    }
}

/// Put into each request by the route.
impl<R: ReadModel, S: Send + Sync> FromRequestParts<S> for Follow<R> {
    type Rejection = super::problem::Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Self::Rejection> {
        let follow = parts.extensions.get::<Self>().cloned();
        Ok(follow.unwrap_or_else(Self::new))
    }
}
