//! Reactors, as a worker sees them.

use std::sync::Arc;

use annals_eventstore::EventStore;
use async_trait::async_trait;

use super::{Context, Projection, projection::Terms, reacting::Reacting};
use crate::{
    control::{Kind, stored},
    error::Error,
    reactor::Reactor,
    register::{Wanted, alone},
    target::Target,
};

pub(super) struct Reactions<R> {
    reactor: Arc<R>,
    wanted: Wanted,
    name: String,
    categories: Vec<String>,
}

impl<R: Reactor> Reactions<R> {
    pub(super) fn new(reactor: R) -> Self {
        let name = reactor.name().to_owned();
        let slices = reactor.slices().max(1);
        Self {
            name: stored(&name),
            wanted: Wanted { kind: Kind::Reactor, name, version: 1, slices },
            categories: R::sources().iter().map(|source| source.category().to_owned()).collect(),
            reactor: Arc::new(reactor),
        }
    }
}

#[async_trait]
impl<R: Reactor> Projection for Reactions<R> {
    fn label(&self) -> &str {
        &self.wanted.name
    }

    fn name(&self) -> &str {
        &self.name
    }

    fn categories(&self) -> &[String] {
        &self.categories
    }

    fn slices(&self) -> u16 {
        self.wanted.slices
    }

    /// Creates its checkpoint where it is to begin, if it is new.
    async fn install(&self, context: &Context) -> Result<(), Error> {
        let start = context.resolve(self, self.reactor.start());
        self.wanted.begin(&context.database, start).await
    }

    /// Goes over to another number of slices: from where the last of them is, so that nothing is left out.
    async fn rebuild(&self, store: &EventStore) -> Result<(), Error> {
        let database = store.database()?;
        let changing = async {
            let (transaction, known) = self.wanted.lock(database).await?;
            if known.is_none_or(|known| self.wanted.fits(known).is_ok()) {
                return Ok(());
            }
            let client = transaction.client()?;
            let reached = self.wanted.reached(database, client).await?;
            self.wanted.forget(database, client).await?;
            self.wanted.register(database, client, reached).await?;
            Ok(transaction.commit().await?)
        };
        alone(store, &self.wanted, changing).await
    }

    fn target(&self, terms: Terms) -> Box<dyn Target> {
        Box::new(Reacting::new(self.reactor.clone(), terms, &self.name))
    }

    fn pauses(&self) -> bool {
        false
    }
}
