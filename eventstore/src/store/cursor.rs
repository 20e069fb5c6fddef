//! Reading that can be stopped and resumed.

use std::time::{Duration, Instant};

use chrono::TimeDelta;

use super::EventStore;
use crate::{
    backend::Page,
    error::Error,
    event::Recorded,
    ids::{Position, Version},
    query::{Direction, EventQuery},
};

/// Over how many positions a page is looked for at first, where a filter may match few of them.
const WINDOW: i64 = 50_000;
/// How long the search for a page should take.
const SEARCH: Duration = Duration::from_millis(100);

/// A place in what a query finds, from which reading goes on. Get one from [`EventStore::cursor`].
///
/// Between two pages it holds no connection and no transaction. Reading can be stopped at any time and
/// resumed in another process: store [`rest`](Self::rest), or, of a query over the log,
/// [`position`](Self::position), together with what the events led to.
///
/// What it guarantees, whatever is appended meanwhile:
/// - Over the log, it never reads above a safe position that was known before the page was read. So no
///   event will ever appear on the side of [`position`](Self::position) that it has dealt with, and a
///   reader that goes on from there repeats none and loses none.
/// - The position also moves past what the query does not match.
/// - Of one stream, it reads the versions in their order, up to the last one recorded.
/// - Events of a stream that is archived before the cursor comes to them are left out, unless the query
///   [includes archived streams](EventQuery::include_archived); then also archiving and restoring
///   lead to no loss and no repetition.
///
/// ```
/// # use annals_eventstore::{EventQuery, EventStore};
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let store = EventStore::in_memory();
/// let mut cursor = store.cursor(EventQuery::log().category("loan"));
/// let events = cursor.next_page().await?;
/// let stored = serde_json::to_string(cursor.rest())?;
///
/// // Later, elsewhere.
/// let mut cursor = store.cursor(serde_json::from_str(&stored)?);
/// let more = cursor.next_page().await?;
/// # assert!(events.is_empty() && more.is_empty());
/// # Ok(()) }
/// ```
#[derive(Clone, Debug)]
#[must_use = "a cursor does nothing until a page is asked for"]
pub struct Cursor {
    store: EventStore,
    rest: EventQuery,
    /// A safe position; the log is complete up to it.
    safe: Position,
    pub(super) window: i64,
}

/// Whether there was more to read when a page was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Then {
    More,
    End,
}

impl Cursor {
    pub(super) fn new(store: EventStore, query: EventQuery) -> Self {
        Self { store, rest: query, safe: Position::START, window: WINDOW }
    }

    /// The next events, at most [a page](EventQuery::page_size) of them. None if there are none at
    /// present: reading forward without an end, ask again later.
    ///
    /// Cancellation safe: a page that was not returned will be returned by the next call.
    ///
    /// # Errors
    /// [`Error::Future`] if the query is from a time that has not come yet, [`Error::StreamArchived`] if
    /// it is for an archived stream, or a failure of the database. The cursor stays where it is.
    pub async fn next_page(&mut self) -> Result<Vec<Recorded>, Error> {
        loop {
            let (events, then) = self.step().await?;
            if !events.is_empty() || then == Then::End {
                return Ok(events);
            }
        }
    }

    /// How far it has looked. Forward, all events at or below this position are dealt with: returned by
    /// [`next_page`](Self::next_page), or not matched. Backward, all events above it.
    ///
    /// Of one stream, it is the position of the last event returned, or forward, where the query starts.
    pub fn position(&self) -> Position {
        match self.rest.direction {
            Direction::Forward => self.rest.after,
            Direction::Backward => self.rest.up_to,
        }
    }

    /// The query for all that is not dealt with yet. A cursor or a read of it goes on from here.
    pub fn rest(&self) -> &EventQuery {
        &self.rest
    }

    /// Ends at what is safe to read now.
    pub(super) async fn end_here(&mut self) -> Result<(), Error> {
        if self.rest.stream.is_none() {
            self.safe = self.safe.max(self.store.safe_position().await?);
            self.rest.up_to = self.rest.up_to.min(self.safe);
        }
        Ok(())
    }

    /// Reads a page, or looks through a part of the log for one.
    pub(super) async fn step(&mut self) -> Result<(Vec<Recorded>, Then), Error> {
        if let Some(time) = self.rest.from_time {
            // Before the earliest time that can be told there is nothing.
            if let Some(before) = time.checked_sub_signed(TimeDelta::nanoseconds(1)) {
                let before = self.store.position_at(before).await?;
                self.rest.after = self.rest.after.max(before);
            }
            self.rest.from_time = None;
        }
        if self.rest.limit == 0
            || self.rest.after >= self.rest.up_to
            || self.rest.after_version >= self.rest.up_to_version
        {
            return Ok((Vec::new(), Then::End));
        }
        let stream = self.rest.stream.as_ref();
        match stream.map(|stream| (stream.category(), &self.rest.categories)) {
            None => self.step_in_log().await,
            Some((category, Some(wanted))) if !wanted.iter().any(|name| name == category) => {
                Ok((Vec::new(), Then::End))
            }
            Some(_) => self.step_in_stream().await,
        }
    }

    /// Cuts off the next page, where it can be told before it is read: what is between here and as many positions
    /// further on as a page may have events. `None` where it cannot be told, or there is none.
    pub(super) fn cut_off(&mut self) -> Option<Self> {
        let Self { rest, safe, .. } = &mut *self;
        let is_plain = rest.stream.is_none()
            && rest.direction == Direction::Forward
            && rest.from_time.is_none()
            // It is counted down, and there are no more positions than this.
            && rest.limit > i64::MAX as u64;
        let page = i64::try_from(rest.page_size.max(1)).unwrap_or(i64::MAX);
        let end = Position::new(rest.after.get().saturating_add(page));
        // What is beyond may not be safe to read yet.
        if !is_plain || end > *safe || end > rest.up_to {
            return None;
        }
        let mut next = self.clone();
        next.rest.up_to = end;
        // It is looked through as a whole, so that nothing of it is left.
        next.window = next.window.max(page);
        self.rest.after = end;
        Some(next)
    }

    async fn step_in_log(&mut self) -> Result<(Vec<Recorded>, Then), Error> {
        let forward = self.rest.direction == Direction::Forward;
        // First the safe position; in a later statement, what is at or below it.
        if self.safe == Position::START || (forward && self.safe <= self.rest.after) {
            self.safe = self.safe.max(self.store.safe_position().await?);
        }
        let (after, end) = (self.rest.after, self.rest.up_to.min(self.safe));
        if end <= after {
            // Of an empty log, a backward cursor knows no end yet.
            return Ok((Vec::new(), Then::End));
        }
        let (from, to) = match self.rest.direction {
            _ if !self.is_search() => (after, end),
            Direction::Forward => (after, end.min(Position::new(after.get() + self.window))),
            Direction::Backward => (after.max(Position::new(end.get() - self.window)), end),
        };
        let started = Instant::now();
        let page = Page { after: from, up_to: to, ..self.page() };
        let events = self.store.backend.page(page).await?;
        let last = events.last().filter(|_| events.len() == page.limit).map(|e| e.position);
        self.fit_window(started.elapsed());
        self.rest.limit -= events.len() as u64;
        match self.rest.direction {
            Direction::Forward => self.rest.after = last.unwrap_or(to),
            Direction::Backward => {
                self.rest.up_to = last.map_or(from, |last| Position::new(last.get() - 1));
            }
        }
        let more = self.rest.after < self.rest.up_to.min(self.safe) && self.rest.limit > 0;
        Ok((events, if more { Then::More } else { Then::End }))
    }

    async fn step_in_stream(&mut self) -> Result<(Vec<Recorded>, Then), Error> {
        let page = self.page();
        let events = self.store.backend.page(page).await?;
        let then = if events.len() == page.limit { Then::More } else { Then::End };
        self.rest.limit -= events.len() as u64;
        if let Some(Recorded { position, version, .. }) = events.last() {
            match self.rest.direction {
                Direction::Forward => {
                    (self.rest.after, self.rest.after_version) = (*position, *version);
                }
                Direction::Backward => {
                    self.rest.up_to = Position::new(position.get() - 1);
                    self.rest.up_to_version = Version::new(version.get() - 1);
                }
            }
        }
        Ok((events, then))
    }

    fn page(&self) -> Page<'_> {
        let rest = &self.rest;
        Page {
            after: rest.after,
            up_to: rest.up_to,
            // A stored query may say 0; a page without room would pass for one without events.
            limit: usize::try_from(rest.limit).unwrap_or(usize::MAX).min(rest.page_size.max(1)),
            bytes: usize::MAX,
            direction: rest.direction,
            stream: rest.stream.as_ref(),
            after_version: rest.after_version,
            up_to_version: rest.up_to_version,
            categories: rest.categories.as_deref(),
            event_types: rest.event_types.as_deref(),
            correlation_id: rest.correlation_id.as_deref(),
            event_id: rest.event_id,
            archived: rest.archived,
        }
    }

    /// True if many events may have to be looked at for each one found. Then a part of the log is
    /// looked at in each statement, so that none takes long and what it has found out is kept.
    fn is_search(&self) -> bool {
        let rest = &self.rest;
        // A correlation id is found by an index.
        rest.correlation_id.is_none()
            && (rest.categories.is_some()
                || rest.event_types.is_some()
                || rest.event_id.is_some()
                || rest.after_version > Version::NONE
                || rest.up_to_version < Version::new(i64::MAX))
    }

    /// Positions may have large holes and events may be large, so time tells how many to look at.
    fn fit_window(&mut self, took: Duration) {
        self.window = match took < SEARCH {
            true => self.window.saturating_mul(2).min(i64::MAX / 4),
            false => (self.window / 2).max(1000),
        };
    }
}
