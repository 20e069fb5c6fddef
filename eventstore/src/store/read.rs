//! Reading events as they are stored, streamed with constant memory.

use futures::{Stream, TryStreamExt, stream};

use super::{EventStore, ahead::Reading, cursor::Cursor};
use crate::{
    backend::Page,
    error::Error,
    event::Recorded,
    ids::{Position, StreamId, Version},
    query::{Archived, EventQuery},
};

impl EventStore {
    /// The events that a query finds, in order, up to what is safe to read when the first is asked for;
    /// of a single stream, up to its end.
    ///
    /// It holds two [pages](EventQuery::page_size) at a time in memory, or three where the log has few holes: from the
    /// second page on, the next ones are fetched while one is used. Between pages it holds no transaction and no
    /// connection. To stop and go on later, or to follow the log, use a [`cursor`](Self::cursor).
    ///
    /// The stream ends after an error: [`Error::Future`] if the query is from a time that has not come
    /// yet, [`Error::StreamArchived`] if it is for an archived stream, or a failure of the database.
    pub fn read(
        &self,
        query: EventQuery,
    ) -> impl Stream<Item = Result<Recorded, Error>> + Send + use<> {
        let pages = stream::try_unfold(Reading::Start(self.cursor(query)), Reading::next);
        pages.map_ok(|events| stream::iter(events.into_iter().map(Ok))).try_flatten()
    }

    /// A cursor at the start of what a query finds. It reads nothing yet.
    pub fn cursor(&self, query: EventQuery) -> Cursor {
        Cursor::new(self.clone(), query)
    }

    /// The events of one stream after a version, in order, up to its present end.
    ///
    /// A stream that does not exist, or is deleted, has no events; an archived one is an error. The same
    /// as [`read`](Self::read) of [`EventQuery::stream`].
    pub fn read_stream(
        &self,
        stream: &StreamId,
        after: Version,
    ) -> impl Stream<Item = Result<Recorded, Error>> + Send + use<> {
        self.read(EventQuery::stream(stream).after_version(after))
    }

    /// All events after a position, in order, up to what is safe to read when called. Events of archived
    /// streams are not among them.
    ///
    /// To go on later, call it again with the position of the last event seen. The same as
    /// [`read`](Self::read) of [`EventQuery::log`].
    pub fn read_all(
        &self,
        after: Position,
    ) -> impl Stream<Item = Result<Recorded, Error>> + Send + use<> {
        self.read(EventQuery::log().after(after))
    }

    /// Like [`read_all`](Self::read_all), but only the events of one category.
    pub fn read_category(
        &self,
        category: &str,
        after: Position,
    ) -> impl Stream<Item = Result<Recorded, Error>> + Send + use<> {
        self.read(EventQuery::log().after(after).category(category))
    }

    /// A page of the log: at most `limit` events after a position and up to another, which must not
    /// be above a [`safe_position`](Self::safe_position) taken before; only of the given
    /// categories, if any are given. It is what feeds are made of.
    ///
    /// Events of archived streams are not among them: a reader with a checkpoint has seen them, and one
    /// that begins later skips them.
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
        self.backend.page(Page { categories, ..Page::log(after, up_to, limit) }).await
    }

    /// Like [`read_page`](Self::read_page), but the page ends with the event with which its payloads come to
    /// `bytes`, so that large events do not fill the memory. It has at least one event if there is one. The events of
    /// archived streams are among them if told so.
    ///
    /// A page that is not full, neither in events nor in bytes, has all events up to `up_to`.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn read_page_within(
        &self,
        archived: Archived,
        categories: Option<&[String]>,
        after: Position,
        up_to: Position,
        limit: usize,
        bytes: usize,
    ) -> Result<Vec<Recorded>, Error> {
        let bytes = bytes.max(1);
        let page = Page { archived, categories, bytes, ..Page::log(after, up_to, limit) };
        self.backend.page(page).await
    }

    /// A [`safe_position`](Self::safe_position), and [`read_page_within`](Self::read_page_within) up to that one or
    /// to `up_to`, whichever is lower. Of PostgreSQL both are asked in one round trip: it is for who has read almost
    /// all there is, and looks for more.
    ///
    /// A page that is not full, neither in events nor in bytes, has all events up to the lower of both.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn look(
        &self,
        categories: Option<&[String]>,
        after: Position,
        up_to: Position,
        limit: usize,
        bytes: usize,
    ) -> Result<(Position, Vec<Recorded>), Error> {
        self.backend
            .look(Page { categories, bytes: bytes.max(1), ..Page::log(after, up_to, limit) })
            .await
    }
}
