//! Reading events as they are stored, streamed with constant memory.

use futures::{Stream, StreamExt, TryStreamExt, stream};

use super::EventStore;
use crate::{
    backend::{Page, Range},
    error::Error,
    event::Recorded,
    ids::{Position, StreamId, Version},
};

/// How many events are fetched at a time.
const PAGE: usize = 2000;

impl EventStore {
    /// The events of one stream after a version, in order, up to its present end.
    ///
    /// A stream that does not exist has no events. No transaction and no connection is held between
    /// pages of 2,000 events.
    pub fn read_stream(
        &self,
        stream: &StreamId,
        after: Version,
    ) -> impl Stream<Item = Result<Recorded, Error>> + Send + use<'_> {
        let stream = [stream.clone()];
        let pages = stream::try_unfold(Some(after), move |after| {
            let stream = stream.clone();
            async move {
                let Some(after) = after else { return Ok(None) };
                let range = Range { after, limit: PAGE as i64, ..Range::ALL };
                let events = self.backend.streams(&stream, range).map_ok(|(_, event)| event);
                let events: Vec<_> = events.try_collect().await?;
                let next = events.last().filter(|_| events.len() == PAGE).map(|e| e.version);
                Ok::<_, Error>(Some((stream::iter(events).map(Ok), next)))
            }
        });
        pages.try_flatten()
    }

    /// All events after a position, in order, up to what is safe to read when called.
    ///
    /// To go on later, call it again with the position of the last event seen.
    pub fn read_all(
        &self,
        after: Position,
    ) -> impl Stream<Item = Result<Recorded, Error>> + Send + use<'_> {
        self.read_categories(None, after)
    }

    /// Like [`read_all`](Self::read_all), but only the events of one category.
    pub fn read_category(
        &self,
        category: &str,
        after: Position,
    ) -> impl Stream<Item = Result<Recorded, Error>> + Send + use<'_> {
        self.read_categories(Some(vec![category.to_owned()]), after)
    }

    fn read_categories(
        &self,
        categories: Option<Vec<String>>,
        after: Position,
    ) -> impl Stream<Item = Result<Recorded, Error>> + Send + use<'_> {
        // The end is taken before the first page is read; never in the same statement.
        let end = async move { self.safe_position().await };
        let pages = stream::once(end).map_ok(move |end| {
            let categories = categories.clone();
            stream::try_unfold(Some(after), move |after| {
                let categories = categories.clone();
                async move {
                    let Some(after) = after else { return Ok(None) };
                    let events = self.read_page(categories.as_deref(), after, end, PAGE).await?;
                    let next = events.last().filter(|_| events.len() == PAGE).map(|e| e.position);
                    Ok::<_, Error>(Some((stream::iter(events).map(Ok), next)))
                }
            })
            .try_flatten()
        });
        pages.try_flatten()
    }

    /// A page of the log: at most `limit` events after a position and up to another, which must not
    /// be above a [`safe_position`](Self::safe_position) taken before; only of the given
    /// categories, if any are given.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn read_page(
        &self,
        categories: Option<&[String]>,
        after: Position,
        up_to: Position,
        limit: usize,
    ) -> Result<Vec<Recorded>, Error> {
        self.backend.page(Page { after, up_to, limit, categories }).await
    }
}
