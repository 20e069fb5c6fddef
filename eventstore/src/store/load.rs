//! Loading aggregates: as they are, and as they were.

use chrono::{DateTime, Utc};
use futures::TryStreamExt;

use super::EventStore;
use crate::{
    aggregate::{Aggregate, Loaded},
    backend::Range,
    error::Error,
    ids::{Position, StreamId, Version},
};

/// A moment of the past.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum AsOf {
    /// Up to this version of the stream, or its end if that comes first.
    Version(Version),
    /// Up to this position of the log. Beyond its end is an error.
    Position(Position),
    /// Up to the last event recorded at or before this time. The future is an error.
    Time(DateTime<Utc>),
}

impl EventStore {
    /// Loads an aggregate; `None` if its stream has no events.
    ///
    /// # Errors
    /// [`Error::Decode`] names the event that cannot be read.
    pub async fn load<A: Aggregate>(
        &self,
        key: impl std::fmt::Display,
    ) -> Result<Option<Loaded<A>>, Error> {
        self.load_range(key, Range::ALL).await
    }

    /// Loads an aggregate as it was; `None` if its stream had no events then.
    ///
    /// # Errors
    /// [`Error::Future`] or [`Error::BeyondEnd`] for a moment that has not come yet, else as
    /// [`load`](Self::load).
    pub async fn load_as_of<A: Aggregate>(
        &self,
        key: impl std::fmt::Display,
        as_of: AsOf,
    ) -> Result<Option<Loaded<A>>, Error> {
        let range = self.range(as_of).await?;
        self.load_range(key, range).await
    }

    /// The events that count as of a moment, once it is settled which these are.
    async fn range(&self, as_of: AsOf) -> Result<Range, Error> {
        Ok(match as_of {
            AsOf::Version(version) => Range { up_to_version: version, ..Range::ALL },
            AsOf::Time(time) => {
                Range { up_to_position: self.position_at(time).await?, ..Range::ALL }
            }
            AsOf::Position(position) => {
                let end = self.backend.last_position().await?;
                if position > end {
                    return Err(Error::BeyondEnd { at: position, end });
                }
                // It is there, and what is in flight below it must be settled.
                while self.safe_position().await? < position {
                    tokio::time::sleep(std::time::Duration::from_millis(3)).await;
                }
                Range { up_to_position: position, ..Range::ALL }
            }
        })
    }

    async fn load_range<A: Aggregate>(
        &self,
        key: impl std::fmt::Display,
        range: Range,
    ) -> Result<Option<Loaded<A>>, Error> {
        let stream = [StreamId::new(A::CATEGORY, key)?];
        let mut loaded = self.fold(&stream, range).await?;
        Ok(loaded.pop().and_then(Loaded::if_exists))
    }

    /// Folds several streams in one query.
    pub(super) async fn fold<A: Aggregate>(
        &self,
        streams: &[StreamId],
        range: Range,
    ) -> Result<Vec<Loaded<A>>, Error> {
        let mut loaded: Vec<Loaded<A>> = streams.iter().map(|_| Loaded::initial()).collect();
        let mut events = self.backend.streams(streams, range);
        while let Some((index, event)) = events.try_next().await? {
            let loaded = &mut loaded[index];
            // Also of an event that is read as none.
            loaded.version = event.version;
            loaded.position = event.position;
            for event in event.decode::<A::Event>()? {
                loaded.state.apply(&event.event);
            }
        }
        Ok(loaded)
    }
}
