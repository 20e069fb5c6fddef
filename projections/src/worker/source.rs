//! Where a runner gets events from.

use std::sync::Arc;

use annals_eventstore::Position;
use async_trait::async_trait;

use super::{Context, latest::Part};
use crate::{error::Error, offsets::RecordAt, page::Pages};

/// The events of the categories of one projection, in the order of their positions.
#[async_trait]
pub(super) trait Source: Send + Sync {
    /// The next events after a position, at most so many; `None` if there is nothing yet. What was given may be
    /// asked for again, from the checkpoint on.
    async fn next(&mut self, after: Position, limit: usize) -> Result<Option<Part>, Error>;

    /// Takes note that the checkpoint has come to a position: nothing at or below it is asked for again.
    fn passed(&mut self, checkpoint: Position) {
        let _ = checkpoint;
    }

    /// Where in Kafka the record of an event is that was given and not passed, if it came from there.
    fn record(&self, position: Position) -> Option<RecordAt> {
        let _ = position;
        None
    }

    /// Waits until there may be something after a position. Cancellation safe.
    async fn is_past(&mut self, after: Position);
}

/// The store, through the feed of the process.
pub(super) struct FromStore {
    context: Arc<Context>,
    pages: Pages,
}

impl FromStore {
    pub(super) fn new(context: &Arc<Context>, categories: &[String]) -> Self {
        Self { context: context.clone(), pages: Pages::of(&context.store, categories) }
    }
}

#[async_trait]
impl Source for FromStore {
    async fn next(&mut self, after: Position, limit: usize) -> Result<Option<Part>, Error> {
        self.context.feed.next(&self.pages, after, limit).await
    }

    async fn is_past(&mut self, after: Position) {
        self.context.feed.is_past(after).await;
    }
}
