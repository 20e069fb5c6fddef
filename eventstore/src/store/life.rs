//! The life of streams, and of idempotency keys.

use std::{sync::Arc, time::Duration};

use super::{EventStore, load::UpTo};
use crate::{
    aggregate::{Aggregate, Loaded},
    append::ExpectedVersion,
    backend::Backend,
    error::Error,
    ids::{StreamId, Version},
    life::{StreamInfo, StreamState},
};

impl EventStore {
    /// The version of a stream and whether it is in use; `None` if it has no events.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn stream_info(&self, stream: &StreamId) -> Result<Option<StreamInfo>, Error> {
        self.backend.stream_info(stream).await
    }

    /// Deletes a stream, softly: until it is [restored](Self::restore_stream), its aggregate and its
    /// events are read as if it did not exist, and it takes no events. Returns its version.
    ///
    /// Its events stay in the log, for all who read the log: they have happened. A read model that should
    /// show the deletion needs an event that says so; append it first, and delete the stream at that
    /// version. Deleting a deleted stream changes nothing. An append that is in flight comes before or
    /// after; with an exact version, nothing comes in between.
    ///
    /// Not cancellation safe: if the future is dropped, the stream may be deleted. Do it again.
    ///
    /// # Errors
    /// [`Error::Conflict`] if the stream has no events or is not as expected,
    /// [`Error::StreamArchived`], or a failure of the database.
    pub async fn delete_stream(
        &self,
        stream: &StreamId,
        expected: ExpectedVersion,
    ) -> Result<Version, Error> {
        self.backend.change_state(stream, expected, StreamState::Deleted).await
    }

    /// Archives a stream: its events move out of the way of all reading that does not
    /// [ask for them](crate::EventQuery::include_archived), and it takes no events until it is
    /// [restored](Self::restore_stream). Returns its version.
    ///
    /// Nothing else changes: its events keep their positions, versions, ids and times, and the position as
    /// of a time stays the same. Who begins to read the log later, or builds a read model anew, does
    /// not see them. Who has begun must have seen them: while a checkpoint of the store is below the
    /// stream's last event, archiving is refused. Archiving an archived stream changes nothing.
    ///
    /// Not cancellation safe: if the future is dropped, the stream may be archived. Do it again.
    ///
    /// # Errors
    /// [`Error::ReaderBehind`] names a reader that has not seen all its events; [`Error::Conflict`] if the
    /// stream has no events or is not as expected; [`Error::StreamDeleted`], or a failure of the
    /// database.
    pub async fn archive_stream(
        &self,
        stream: &StreamId,
        expected: ExpectedVersion,
    ) -> Result<Version, Error> {
        self.backend.change_state(stream, expected, StreamState::Archived).await
    }

    /// Brings a deleted or an archived stream back. Returns its version.
    ///
    /// Its events are where they were. A reader that began while the stream was archived has not seen
    /// them and, being past them, will not: build its read model anew. Restoring a stream that is in use
    /// changes nothing.
    ///
    /// Not cancellation safe: if the future is dropped, the stream may be restored. Do it again.
    ///
    /// # Errors
    /// [`Error::ReaderBehind`] if a reader stands before the last event of an archived stream and would see
    /// a part of it; [`Error::Conflict`] if the stream has no events; or a failure of the database.
    pub async fn restore_stream(&self, stream: &StreamId) -> Result<Version, Error> {
        self.backend.change_state(stream, ExpectedVersion::Any, StreamState::Live).await
    }

    /// Loads an aggregate, also if its stream is archived; `None` if its stream has no events, or is
    /// deleted.
    ///
    /// # Errors
    /// As [`load`](Self::load), without [`Error::StreamArchived`].
    pub async fn load_archived<A: Aggregate>(
        &self,
        key: impl std::fmt::Display,
    ) -> Result<Option<Loaded<A>>, Error> {
        let stream = StreamId::new(A::CATEGORY, key)?;
        let state = self.load_up_to::<A>(&stream, UpTo::END_WITH_ARCHIVED).await?;
        Ok(state.loaded.if_exists())
    }

    /// Removes the idempotency keys that were recorded longer ago than this; returns how many.
    ///
    /// It walks through them once, in small transactions, and yields to another process that is doing
    /// the same. A command or an append that is repeated under a removed key is a new one.
    ///
    /// If the future is dropped, some of the keys are removed.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn remove_idempotency_keys(&self, older_than: Duration) -> Result<u64, Error> {
        self.backend.remove_keys(older_than).await
    }
}

/// How long to wait between two rounds of removing, whatever the retention.
const ROUNDS: std::ops::RangeInclusive<Duration> =
    Duration::from_millis(100)..=Duration::from_secs(3600);

/// Removes keys until it is aborted.
pub(super) async fn remove_old_keys(store: Arc<dyn Backend>, retention: Duration) {
    let interval = (retention / 10).clamp(*ROUNDS.start(), *ROUNDS.end());
    loop {
        match store.remove_keys(retention).await {
            Ok(0) => {}
            Ok(removed) => tracing::debug!(removed, "idempotency keys removed"),
            Err(Error::Closed) => return,
            Err(error) => tracing::warn!(%error, "idempotency keys not removed; trying again"),
        }
        tokio::time::sleep(interval).await;
    }
}
