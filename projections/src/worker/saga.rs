//! Sagas, as a worker sees them: a feed that moves them, and beside it, in every process, a desk that makes their calls.

use std::{marker::PhantomData, sync::Arc};

use annals_eventstore::EventStore;
use async_trait::async_trait;
use tokio::sync::Notify;

use super::{Context, Log, Projection, projection::Terms};
use crate::{
    control::{Kind, stored},
    error::Error,
    register::Wanted,
    saga::{Desk, DeskOptions, Feeding, Ledger, Perform, Process},
    start::Start,
    target::Target,
};

pub(super) struct Sagas<S, P> {
    performer: Arc<P>,
    start: Start,
    wanted: Wanted,
    name: String,
    categories: Vec<String>,
    /// Told by the feed when there are calls to be made.
    wake: Arc<Notify>,
    saga: PhantomData<fn() -> S>,
}

impl<S: Process, P: Perform<S>> Sagas<S, P> {
    pub(super) fn new(performer: P, start: Start) -> Self {
        let name = S::CATEGORY.to_owned();
        Self {
            performer: Arc::new(performer),
            start,
            name: stored(&name),
            wanted: Wanted { kind: Kind::Saga, name, version: 1, slices: 1 },
            categories: S::sources().iter().map(|source| source.category().to_owned()).collect(),
            wake: Arc::new(Notify::new()),
            saga: PhantomData,
        }
    }
}

#[async_trait]
impl<S: Process, P: Perform<S>> Projection for Sagas<S, P> {
    fn label(&self) -> &str {
        &self.wanted.name
    }

    fn name(&self) -> &str {
        &self.name
    }

    fn categories(&self) -> &[String] {
        &self.categories
    }

    /// Creates its checkpoint where it is to begin, if it is new.
    async fn install(&self, context: &Context) -> Result<(), Error> {
        if context.log != Log::Ours {
            return Err(Error::ForeignSaga { saga: self.wanted.name.clone() });
        }
        let start = context.resolve(self, self.start);
        self.wanted.begin(&context.database, start).await
    }

    /// There is nothing to be built: what it has done cannot be done anew.
    async fn rebuild(&self, store: &EventStore) -> Result<(), Error> {
        let database = store.database()?;
        let known = self.wanted.look(database, &database.client().await?).await?;
        known.map_or(Ok(()), |known| self.wanted.fits(known))
    }

    fn target(&self, terms: Terms) -> Box<dyn Target> {
        let ledger = Arc::new(Ledger::<S>::new(&terms.store, &terms.database));
        Box::new(Feeding::new(ledger, terms.patience, self.wake.clone()))
    }

    async fn beside(&self, context: &Context) -> Result<(), Error> {
        let Context { store, database, options, stop, .. } = context;
        let ledger = Arc::new(Ledger::<S>::new(store, database));
        let options = DeskOptions {
            time_to_live: options.lease.time_to_live,
            stop_within: options.stop_within,
        };
        Desk::new(ledger, self.performer.clone(), self.wake.clone(), options).run(stop).await
    }
}
