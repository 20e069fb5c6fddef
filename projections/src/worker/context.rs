//! What every projection of a worker works on.

use std::sync::Arc;

use annals_eventstore::{EventStore, Position};
use tokio_util::sync::CancellationToken;

use super::{
    Options, Projection,
    feed::Feed,
    slice,
    source::{self, Source},
};
#[cfg(feature = "kafka")]
use super::{foreign, from_kafka};
use crate::{
    control::{FedBy, set_fed_by},
    error::Error,
    start::Start,
};

/// What every projection works on.
pub(crate) struct Context {
    pub(super) store: EventStore,
    pub(super) database: annals_eventstore::postgres::Database,
    pub(super) options: Options,
    pub(super) stop: CancellationToken,
    pub(super) feed: Feed,
    pub(super) log: Log,
    #[cfg(feature = "kafka")]
    pub(super) topics: Option<crate::kafka::Source>,
    #[cfg(feature = "kafka")]
    pub(super) instance: Option<String>,
    /// Of each projection, what was applied since its group was told.
    #[cfg(feature = "kafka")]
    pub(super) applied: std::sync::Mutex<std::collections::HashMap<String, crate::kafka::Offsets>>,
}

#[cfg(feature = "kafka")]
impl Context {
    /// Notes how far a projection has come, for its group.
    pub(super) fn applied(&self, label: &str, offsets: &crate::offsets::Offsets) {
        let mut applied = self.applied.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let applied = applied.entry(label.to_owned()).or_default();
        for ((topic, partition), next) in offsets {
            applied.set(topic, *partition, *next);
        }
    }

    pub(super) fn take_applied(&self, label: &str) -> Option<crate::kafka::Offsets> {
        self.applied.lock().unwrap_or_else(std::sync::PoisonError::into_inner).remove(label)
    }
}

impl Context {
    /// Reads the store for all who are fed by it, until told to stop.
    pub(super) async fn feed(&self) {
        #[cfg(feature = "kafka")]
        if self.topics.is_some() {
            return self.stop.cancelled().await;
        }
        self.feed.run(&self.stop).await;
    }

    /// Makes sure that all positions here are of one log.
    pub(super) async fn check_log(&self) -> Result<(), Error> {
        #[cfg(feature = "kafka")]
        foreign::check(&self.database, self.log, self.topics.as_ref()).await?;
        Ok(())
    }

    /// The position after which a projection is to start.
    pub(super) async fn resolve(
        &self,
        projection: &dyn Projection,
        start: Start,
    ) -> Result<Position, Error> {
        #[cfg(feature = "kafka")]
        if let (Log::Foreign, Some(topics)) = (self.log, &self.topics) {
            return foreign::resolve(topics, projection, start).await;
        }
        let _ = projection;
        Ok(start.resolve(&self.store).await?)
    }

    /// What brings the events of a slice that is held in an epoch.
    pub(super) async fn source(
        self: &Arc<Self>,
        projection: &dyn Projection,
        slice: u16,
        epoch: i64,
    ) -> Result<Box<dyn Source>, Error> {
        #[cfg(feature = "kafka")]
        if let Some(topics) = &self.topics {
            return Ok(Box::new(from_kafka::FromKafka::new(
                self, topics, projection, slice, epoch,
            )));
        }
        let name = slice::slice_name(projection.name(), slice, projection.slices());
        set_fed_by(&self.database, &name, epoch, &FedBy::Store).await?;
        Ok(Box::new(source::FromStore::new(self, projection.categories())))
    }
}

/// Whose log the events are of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(not(feature = "kafka"), allow(dead_code, reason = "only Kafka brings foreign events"))]
pub(crate) enum Log {
    /// The store's in whose database the worker works.
    Ours,
    /// That of another service, which has a database of its own: only Kafka brings its events.
    Foreign,
}
