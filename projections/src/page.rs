//! Reading the log page by page, for those who follow it.

use std::sync::atomic::{AtomicBool, Ordering};

use annals_eventstore::{EventStore, Position, Recorded};

use crate::error::Error;

/// How many positions a page spans for each event that it may hold, so that a page that finds little does
/// not look through the whole log in one statement.
const SPAN: i64 = 16;

/// The log, as far as some categories are concerned.
///
/// Looking up the category of each event costs the database as much as reading it. Where most events are
/// wanted, all are read, and the others are left out here.
pub(crate) struct Pages {
    store: EventStore,
    categories: Vec<String>,
    /// Most events are of the categories.
    dense: AtomicBool,
}

/// A page: its events, and the position up to which there are no others.
pub(crate) struct Page {
    pub(crate) events: Vec<Recorded>,
    pub(crate) to: Position,
}

impl Pages {
    pub(crate) fn of(store: &EventStore, categories: &[String]) -> Self {
        let (store, categories) = (store.clone(), categories.to_vec());
        Self { store, categories, dense: AtomicBool::new(false) }
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
        let span = i64::try_from(limit).unwrap_or(i64::MAX).saturating_mul(SPAN);
        let end = end.min(Position::new(after.get().saturating_add(span)));
        let dense = self.dense.load(Ordering::Relaxed);
        let wanted = (!dense).then_some(&*self.categories);
        let mut events = self.store.read_page(wanted, after, end, limit).await?;
        let to = match events.last() {
            Some(last) if events.len() == limit => last.position,
            _ => end,
        };
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
        Ok(Page { events, to })
    }
}
