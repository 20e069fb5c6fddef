//! Projections of any kind, as a worker sees them.

use std::{marker::PhantomData, time::Duration};

use annals_eventstore::{EventStore, breaker::BreakerOptions, postgres::Database};
use async_trait::async_trait;
use tokio_util::sync::CancellationToken;

use super::{Context, forgetting};
use crate::{
    engine::Engine, error::Error, install::install, read_model::ReadModel,
    rebuild::bring_up_to_date, table::checkpoint_name, target::Target,
};

/// A projection of any kind.
#[async_trait]
pub(crate) trait Projection: Send + Sync + 'static {
    /// Its name for people.
    fn label(&self) -> &str;
    /// The name of its checkpoint; of those of its slices, what comes before the number.
    fn name(&self) -> &str;
    fn categories(&self) -> &[String];
    fn slices(&self) -> u16 {
        1
    }
    /// Makes sure that all it needs is there.
    async fn install(&self, context: &Context) -> Result<(), Error>;
    /// Builds it anew, where [`install`](Self::install) says that it is outdated.
    async fn rebuild(&self, store: &EventStore) -> Result<(), Error>;
    /// What does its work.
    fn target(&self, terms: Terms) -> Box<dyn Target>;
    /// Whether it pauses itself when stream after stream fails. Others have circuit breakers.
    fn pauses(&self) -> bool {
        true
    }
    /// What every process does beside the slices that it works on, until it is told to stop.
    async fn beside(&self, _context: &Context) -> Result<(), Error> {
        Ok(())
    }
}

/// What a target works with.
#[derive(Clone, Debug)]
pub(crate) struct Terms {
    pub(crate) store: EventStore,
    pub(crate) database: Database,
    /// How long a worker that is paused holds up its successor.
    pub(crate) patience: Duration,
    /// How often an event is tried whose failure may pass.
    pub(crate) attempts: u32,
    pub(crate) breaker: BreakerOptions,
    /// Told when it is to stop.
    pub(crate) stop: CancellationToken,
    /// How long what runs may go on then.
    pub(crate) stop_within: Duration,
}

pub(super) struct RowProjection<R> {
    name: String,
    categories: Vec<String>,
    row: PhantomData<fn() -> R>,
}

impl<R: ReadModel> RowProjection<R> {
    pub(super) fn new() -> Self {
        let (name, categories) = (checkpoint_name::<R>(), Engine::<R>::categories());
        Self { name, categories, row: PhantomData }
    }
}

#[async_trait]
impl<R: ReadModel> Projection for RowProjection<R> {
    fn label(&self) -> &str {
        R::TABLE
    }

    fn name(&self) -> &str {
        &self.name
    }

    fn categories(&self) -> &[String] {
        &self.categories
    }

    fn slices(&self) -> u16 {
        R::SLICES
    }

    async fn install(&self, context: &Context) -> Result<(), Error> {
        let database = &context.database;
        if database.inline_categories(&self.name).await?.is_some() {
            return Err(Error::RunsInline { projection: R::TABLE.to_owned() });
        }
        install::<R>(database).await
    }

    async fn rebuild(&self, store: &EventStore) -> Result<(), Error> {
        bring_up_to_date::<R>(store).await
    }

    async fn beside(&self, context: &Context) -> Result<(), Error> {
        forgetting::run::<R>(context).await;
        Ok(())
    }

    fn target(&self, terms: Terms) -> Box<dyn Target> {
        Box::new(Engine::<R>::new(&terms.database, terms.patience))
    }
}
