//! Pages that were taken from a subscription, until the checkpoint has passed them. Pure.

use std::collections::VecDeque;

use annals_eventstore::{Position, Recorded};

use super::super::latest::Part;
use crate::{
    kafka::{self, Origin},
    offsets::{Mark, Offsets},
    page::{PAGE_BYTES, size, size_of},
};

/// So many bytes of events are held at most before more are taken.
const MOST_BYTES: usize = 4 * PAGE_BYTES;

/// What lies behind the checkpoint, in order, and was taken already. It can be asked for again.
#[derive(Debug, Default)]
pub(super) struct Held {
    pages: VecDeque<Page>,
    /// From where on all is here.
    from: Position,
    /// Up to where it reaches.
    to: Position,
    bytes: usize,
    /// The offsets that were given last, so that only those that change are written.
    given: Offsets,
    /// Up to where parts were given.
    given_to: Position,
}

#[derive(Debug)]
struct Page {
    events: Vec<Recorded>,
    to: Position,
    offsets: Option<Offsets>,
    /// Of each event, where its record is.
    origins: Vec<Origin>,
}

impl Held {
    /// Nothing, from a position on.
    pub(super) fn after(position: Position) -> Self {
        Self { from: position, to: position, given_to: position, ..Self::default() }
    }

    pub(super) fn to(&self) -> Position {
        self.to
    }

    /// Whether events behind a position are not here any more.
    pub(super) fn lacks(&self, after: Position) -> bool {
        after < self.from
    }

    pub(super) fn has_room(&self) -> bool {
        self.bytes < MOST_BYTES
    }

    pub(super) fn add_page(&mut self, page: kafka::Page) {
        let offsets = to_keep(&page.offsets);
        let origins = (0..page.events.len()).filter_map(|event| page.origin(event)).collect();
        self.put(page.events, page.end, Some(offsets), origins);
    }

    /// Adds what comes next from the store.
    pub(super) fn add(&mut self, events: Vec<Recorded>, to: Position) {
        self.put(events, to, None, Vec::new());
    }

    /// Adds what comes next. What is at or before where this reaches is here already, or was never wanted.
    fn put(
        &mut self,
        mut events: Vec<Recorded>,
        to: Position,
        offsets: Option<Offsets>,
        mut origins: Vec<Origin>,
    ) {
        if to <= self.to {
            return;
        }
        let known = events.partition_point(|event| event.position <= self.to);
        events.drain(..known);
        origins.drain(..known.min(origins.len()));
        self.to = to;
        self.bytes += size_of(&events);
        self.pages.push_back(Page { events, to, offsets, origins });
    }

    /// Forgets what will not be asked for again. Returns the offsets behind it, if they are known.
    pub(super) fn passed(&mut self, checkpoint: Position) -> Option<Offsets> {
        let mut passed = None;
        while let Some(page) = self.pages.pop_front_if(|page| page.to <= checkpoint) {
            self.bytes -= size_of(&page.events);
            self.from = page.to;
            passed = page.offsets;
        }
        passed
    }

    /// Where the record of an event is that is here.
    pub(super) fn origin(&self, position: Position) -> Option<&Origin> {
        let page = self.pages.iter().find(|page| page.to >= position)?;
        let event = page.events.binary_search_by_key(&position, |event| event.position).ok()?;
        page.origins.get(event)
    }

    /// The next events after a position, at most so many, and the offsets that hold once all before them are
    /// dealt with; `None` if there is nothing behind it.
    pub(super) fn part(&mut self, after: Position, limit: usize) -> Option<Part> {
        if self.to <= after {
            return None;
        }
        if after < self.given_to {
            // What was given was not kept, it may be. So all offsets are given again.
            self.given.clear();
        }
        let (mut events, mut bytes, mut reached) = (Vec::new(), 0, after);
        let mut mark = None;
        'pages: for page in self.pages.iter().filter(|page| page.to > after) {
            let first = page.events.partition_point(|event| event.position <= after);
            for event in &page.events[first..] {
                if events.len() >= limit.max(1) || bytes >= PAGE_BYTES {
                    break 'pages;
                }
                bytes += size(event);
                reached = event.position;
                events.push(event.clone());
            }
            reached = page.to;
            if let Some(offsets) = &page.offsets {
                mark = Some((page.to, offsets));
            }
        }
        let mark = mark.map(|(position, offsets)| {
            let changed =
                offsets.iter().filter(|(place, next)| self.given.get(place) != Some(next));
            let changed: Offsets = changed.map(|(place, next)| (place.clone(), *next)).collect();
            Mark { position, offsets: changed }
        });
        if let Some(mark) = &mark {
            self.given.extend(mark.offsets.iter().map(|(place, next)| (place.clone(), *next)));
        }
        self.given_to = reached;
        let mark = mark.filter(|mark| !mark.offsets.is_empty());
        Some(Part { events, to: reached, more: reached < self.to, mark })
    }
}

/// Offsets as they are kept beside the checkpoint.
pub(super) fn to_keep(offsets: &kafka::Offsets) -> Offsets {
    offsets.iter().map(|(topic, partition, next)| ((topic.to_owned(), partition), next)).collect()
}

#[cfg(test)]
mod tests;
