//! Projections of any kind, as a worker sees them.

use std::{marker::PhantomData, time::Duration};

use annals_eventstore::{EventStore, StreamId, postgres::Database};
use async_trait::async_trait;
use tokio_util::sync::CancellationToken;

use super::{Context, breaker::BreakerOptions};
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
    async fn install(&self, store: &EventStore) -> Result<(), Error>;
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

    async fn install(&self, store: &EventStore) -> Result<(), Error> {
        let database = store.database()?;
        if database.inline_categories(&self.name).await?.is_some() {
            return Err(Error::RunsInline { projection: R::TABLE.to_owned() });
        }
        install::<R>(database).await
    }

    async fn rebuild(&self, store: &EventStore) -> Result<(), Error> {
        bring_up_to_date::<R>(store).await
    }

    fn target(&self, terms: Terms) -> Box<dyn Target> {
        Box::new(Engine::<R>::new(&terms.database, terms.patience))
    }
}

/// The slice of a stream: by a hash of its key, so that streams of several categories that share a key, and
/// so a row, are in one. FNV-1a, which is the same in every program, finished as MurmurHash3 is: by itself it
/// hardly mixes the last bytes, in which keys differ most.
pub(crate) fn slice_of(stream: &StreamId, slices: u16) -> u16 {
    if slices <= 1 {
        return 0;
    }
    let hash = stream.key().bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3)
    });
    let hash = (hash ^ hash >> 33).wrapping_mul(0xff51_afd7_ed55_8ccd);
    let hash = (hash ^ hash >> 33).wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    ((hash ^ hash >> 33) % u64::from(slices)) as u16
}

/// The name of a slice's checkpoint and lease.
pub(crate) fn slice_name(name: &str, slice: u16, slices: u16) -> String {
    if slices <= 1 { name.to_owned() } else { format!("{name}/{slice}") }
}
