//! The latest events of the log, in memory. Pure.

use std::collections::VecDeque;

use annals_eventstore::{Position, Recorded};

use crate::{
    offsets::Mark,
    page::{PAGE_BYTES, size, size_of},
};

/// How many of the latest events are kept, and how many bytes of theirs.
const KEPT: usize = 10_000;
const KEPT_BYTES: usize = 32 << 20;

/// All of the feed's categories after `after`, up to `to`.
pub(super) struct Latest {
    after: Position,
    to: Position,
    events: VecDeque<Recorded>,
    bytes: usize,
}

/// A part of the log: its events, and the position that it reaches.
#[derive(Debug)]
pub(super) struct Part {
    pub(super) events: Vec<Recorded>,
    pub(super) to: Position,
    /// There was more when it was read.
    pub(super) more: bool,
    /// Where in Kafka to go on, if it comes from there, and it is known.
    pub(super) mark: Option<Mark>,
}

impl Part {
    /// What was read up to `end`, `limit` events at most and no more after [`PAGE_BYTES`]. What is not full
    /// has seen all up to the end, also what it does not match.
    pub(super) fn read(events: Vec<Recorded>, limit: usize, end: Position) -> Self {
        let is_full = events.len() >= limit || size_of(&events) >= PAGE_BYTES;
        let to = events.last().filter(|_| is_full).map_or(end, |last| last.position);
        Self { more: to < end, events, to, mark: None }
    }
}

impl Latest {
    /// None yet, from a position on.
    pub(super) fn begin(at: Position) -> Self {
        Self { after: at, to: at, events: VecDeque::new(), bytes: 0 }
    }

    pub(super) fn to(&self) -> Position {
        self.to
    }

    /// Adds what comes next in the log, and forgets what is too much.
    pub(super) fn add(&mut self, part: Part) {
        self.to = part.to;
        self.bytes += size_of(&part.events);
        self.events.extend(part.events);
        while self.events.len() > KEPT || self.bytes > KEPT_BYTES {
            let Some(first) = self.events.pop_front() else { break };
            self.bytes -= size(&first);
            self.after = first.position;
        }
    }

    /// The next events of some categories after a position; `None` if they are no longer here.
    pub(super) fn part(
        &self,
        categories: &[String],
        after: Position,
        limit: usize,
    ) -> Option<Part> {
        if after < self.after {
            return None;
        }
        let first = self.events.partition_point(|event| event.position <= after);
        let mut bytes = 0;
        let of_them = |event: &&Recorded| {
            categories.iter().any(|category| category == event.stream.category())
        };
        let fits = |event: &&Recorded| {
            let fits = bytes < PAGE_BYTES;
            bytes += size(event);
            fits
        };
        let events = self.events.range(first..).filter(of_them).take(limit).take_while(fits);
        Some(Part::read(events.cloned().collect(), limit, self.to))
    }
}

#[cfg(test)]
mod tests;
