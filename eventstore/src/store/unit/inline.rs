//! Appends that inline projections see, in transactions of their own.

use std::sync::Arc;

use crate::{
    backend::{Outcome, Request},
    error::Error,
    postgres::SqlProjection,
    store::EventStore,
};

/// How often an append that projects inline is tried again when it loses to others.
const ATTEMPTS: usize = 5;

impl EventStore {
    /// This store with a projection that is written in the transaction of every append.
    ///
    /// It only adds what this store runs. `InlineProjections::with_inline` of the projections' crate
    /// also registers the projection in the database and brings it up to date; use that.
    #[must_use]
    pub fn running_inline(&self, projection: Arc<dyn SqlProjection>) -> Self {
        let others = self.inline.iter().filter(|other| other.name() != projection.name());
        let inline = others.cloned().chain([projection.clone()]).collect();
        Self { inline, ..self.clone() }
    }

    /// Records a request in a transaction of its own, with what is projected inline.
    pub(in crate::store) async fn record_inline(&self, request: Request) -> Result<Outcome, Error> {
        for _ in 1..ATTEMPTS {
            let session = self.backend.begin().await?;
            match session.commit(request.clone(), &self.inline).await {
                // It surely left nothing behind.
                Err(
                    Error::Inline { retryable: true, .. }
                    | Error::Database { retryable: true, .. }
                    | Error::KeyInFlight,
                ) => {}
                result => return result,
            }
        }
        self.backend.begin().await?.commit(request, &self.inline).await
    }
}

/// Whether one of the projections must see an append.
pub(in crate::store) fn concerns(inline: &[Arc<dyn SqlProjection>], request: &Request) -> bool {
    inline.iter().any(|projection| {
        let mut streams = request.streams.iter().map(|(stream, _)| stream.category());
        streams.any(|category| projection.categories().iter().any(|name| name == category))
    })
}
