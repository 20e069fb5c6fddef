//! Reading the log page by page, for those who follow it.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use annals_eventstore::{Archived, EventStore, Position, Recorded};

use crate::error::Error;

/// How many positions a page spans for each event that it may hold, so that a page that finds little does
/// not look through the whole log in one statement.
const SPAN: i64 = 16;

/// Events of so many bytes are read at once at most; one event is always.
pub(crate) const PAGE_BYTES: usize = 8 << 20;
/// How many events are read the first time, when it is not known how large they are.
const FIRST: usize = 250;

/// The log, as far as some categories are concerned.
///
/// Looking up the category of each event costs the database as much as reading it. Where most events are
/// wanted, all are read, and the others are left out here.
pub(crate) struct Pages {
    store: EventStore,
    categories: Vec<String>,
    archived: Archived,
    /// Most events are of the categories.
    dense: AtomicBool,
    /// How many events are about as large as may be read at once.
    fitting: AtomicUsize,
}

/// A page: its events, and the position up to which there are no others.
pub(crate) struct Page {
    pub(crate) events: Vec<Recorded>,
    pub(crate) to: Position,
}

impl Pages {
    pub(crate) fn of(store: &EventStore, categories: &[String]) -> Self {
        let (store, categories) = (store.clone(), categories.to_vec());
        Self {
            store,
            categories,
            archived: Archived::Excluded,
            dense: AtomicBool::new(false),
            fitting: AtomicUsize::new(FIRST),
        }
    }

    pub(crate) fn with(mut self, archived: Archived) -> Self {
        self.archived = archived;
        self
    }

    pub(crate) fn categories(&self) -> &[String] {
        &self.categories
    }

    /// The next page after a position, up to `end`, which must be safe to read.
    pub(crate) async fn next(
        &self,
        after: Position,
        end: Position,
        limit: usize,
    ) -> Result<Page, Error> {
        let asked = self.asked(after, end, limit);
        let Asked { end, limit, .. } = asked;
        let wanted = self.wanted(&asked);
        let Self { store, archived, .. } = self;
        let events =
            store.read_page_within(*archived, wanted, after, end, limit, PAGE_BYTES).await?;
        Ok(self.page(asked, events))
    }

    /// The safe position, and the next page after a position, up to it, without what is archived.
    pub(crate) async fn look(
        &self,
        after: Position,
        limit: usize,
    ) -> Result<(Position, Page), Error> {
        let asked = self.asked(after, Position::new(i64::MAX), limit);
        let Asked { end, limit, .. } = asked;
        let wanted = self.wanted(&asked);
        let (safe, events) = self.store.look(wanted, after, end, limit, PAGE_BYTES).await?;
        let asked = Asked { end: end.min(safe).max(after), ..asked };
        Ok((safe, self.page(asked, events)))
    }

    fn asked(&self, after: Position, end: Position, limit: usize) -> Asked {
        // What lies behind the bytes that may be read would be sent in vain.
        let fitting = self.fitting.load(Ordering::Relaxed);
        let limit = limit.min(fitting);
        let span = i64::try_from(limit).unwrap_or(i64::MAX).saturating_mul(SPAN);
        let end = end.min(Position::new(after.get().saturating_add(span)));
        Asked { after, end, limit, fitting, dense: self.dense.load(Ordering::Relaxed) }
    }

    fn wanted(&self, asked: &Asked) -> Option<&[String]> {
        (!asked.dense).then_some(&*self.categories)
    }

    fn page(&self, asked: Asked, mut events: Vec<Recorded>) -> Page {
        let Asked { after, end, limit, fitting, dense } = asked;
        let is_large = size_of(&events) >= PAGE_BYTES;
        let to = match events.last() {
            Some(last) if events.len() == limit || is_large => last.position,
            _ => end,
        };
        // Others may read at the same time: what is large for one is for all.
        if is_large {
            self.fitting.fetch_min(events.len().max(1), Ordering::Relaxed);
        } else if events.len() == fitting {
            let double = fitting.saturating_mul(2);
            let _ = self.fitting.compare_exchange(
                fitting,
                double,
                Ordering::Relaxed,
                Ordering::Relaxed,
            );
        }
        if dense {
            events.retain(|event| {
                self.categories.iter().any(|category| category == event.stream.category())
            });
        }
        // Small pages say nothing: the log has holes.
        let passed = to.get() - after.get();
        if passed >= 100 {
            self.dense.store(events.len() as i64 > passed / 2, Ordering::Relaxed);
        }
        Page { events, to }
    }
}

/// What a page was asked for.
#[derive(Clone, Copy)]
struct Asked {
    after: Position,
    end: Position,
    limit: usize,
    /// How many events were about as large as may be read at once.
    fitting: usize,
    /// All events were asked for, whatever their categories.
    dense: bool,
}

pub(crate) fn size(event: &Recorded) -> usize {
    event.event.as_bytes().len()
}

pub(crate) fn size_of(events: &[Recorded]) -> usize {
    events.iter().map(size).sum()
}
