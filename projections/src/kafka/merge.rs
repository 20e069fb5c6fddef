//! Partitions merged into one log again. Pure.
//!
//! In a partition, events appear first in the order of their positions; what was sent twice appears
//! again. A partition alone does not tell what is still to come, so a position is *complete* once every
//! partition has been read up to where it can no longer hold an event of that position or one before:
//! - as far as the publisher says that all is published (`known`), a partition that has been read up to
//!   the offset that goes with that (`target`) holds nothing more;
//! - a partition that has not, holds nothing more up to the last position that was seen in it.

use std::{
    cmp::Reverse,
    collections::{BinaryHeap, VecDeque},
};

use annals_eventstore::Position;

/// What the merge holds of an event besides its content.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Entry<E> {
    pub(super) position: Position,
    pub(super) offset: i64,
    /// How much memory it takes, about.
    pub(super) bytes: usize,
    pub(super) event: E,
}

/// Events in order, and the position up to which there are no others.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Taken<E> {
    /// Each with the number of its lane.
    pub(super) events: Vec<(usize, Entry<E>)>,
    pub(super) end: Position,
}

/// A partition.
#[derive(Debug)]
struct Lane<E> {
    waiting: VecDeque<Entry<E>>,
    bytes: usize,
    /// The offset of what is read next.
    reached: i64,
    /// What lies before it is complete up to `known`.
    target: i64,
    /// The last position that was seen here.
    last: Position,
}

impl<E> Lane<E> {
    fn complete(&self, known: Position) -> Position {
        if self.reached >= self.target { known } else { self.last.min(known) }
    }
}

/// The merge of some partitions, its lanes.
#[derive(Debug)]
pub(super) struct Merge<E> {
    lanes: Vec<Lane<E>>,
    /// Every event up to here is published, and before its lane's target.
    known: Position,
    /// What was taken reaches up to here.
    end: Position,
}

impl<E> Merge<E> {
    /// From a position on. Nothing is known, and there is no lane yet.
    pub(super) fn after(position: Position) -> Self {
        Self { lanes: Vec::new(), known: position, end: position }
    }

    /// Adds a lane that is read from an offset on. Returns its number.
    pub(super) fn add_lane(&mut self, from: i64) -> usize {
        let lane = Lane {
            waiting: VecDeque::new(),
            bytes: 0,
            reached: from,
            target: from,
            last: self.end,
        };
        self.lanes.push(lane);
        self.lanes.len() - 1
    }

    /// An event was read. One that was there before is left out, as is one whose content is not wanted.
    pub(super) fn read(&mut self, lane: usize, entry: Entry<Option<E>>) {
        let lane = &mut self.lanes[lane];
        lane.reached = lane.reached.max(entry.offset + 1);
        if entry.position <= lane.last {
            return;
        }
        lane.last = entry.position;
        let Entry { position, offset, bytes, event } = entry;
        if let Some(event) = event {
            lane.bytes += bytes;
            lane.waiting.push_back(Entry { position, offset, bytes, event });
        }
    }

    /// A lane was read up to an offset, by way of records that hold no event.
    pub(super) fn reach(&mut self, lane: usize, next: i64) {
        let lane = &mut self.lanes[lane];
        lane.reached = lane.reached.max(next);
    }

    /// What is published up to `known` lies before these offsets, lane by lane; where a lane is not named,
    /// before its last target.
    pub(super) fn know(
        &mut self,
        known: Position,
        targets: impl IntoIterator<Item = (usize, i64)>,
    ) {
        self.known = self.known.max(known);
        for (lane, target) in targets {
            let lane = &mut self.lanes[lane];
            lane.target = lane.target.max(target);
        }
    }

    /// The position up to which all is here.
    pub(super) fn complete(&self) -> Position {
        let lanes = self.lanes.iter().map(|lane| lane.complete(self.known));
        lanes.min().unwrap_or(self.known).max(self.end)
    }

    /// Whether a lane still has to be read before all is here that is known to be published.
    pub(super) fn is_behind(&self) -> bool {
        self.lanes.iter().any(|lane| lane.reached < lane.target)
    }

    /// The next events in order, up to so many and so many bytes, and one at least; `None` if nothing is
    /// complete behind what was taken before.
    pub(super) fn take(&mut self, limit: usize, limit_bytes: usize) -> Option<Taken<E>> {
        let complete = self.complete();
        if complete <= self.end {
            return None;
        }
        let mut heads: BinaryHeap<_> = (0..self.lanes.len())
            .filter_map(|lane| Some(Reverse((self.head(lane)?, lane))))
            .collect();
        let (mut events, mut bytes) = (Vec::new(), 0);
        self.end = complete;
        while let Some(Reverse((position, number))) = heads.pop() {
            if position > complete {
                break;
            }
            if events.len() >= limit.max(1) || bytes >= limit_bytes.max(1) {
                // There is a last event, since the limits let one through.
                self.end =
                    events.last().map_or(self.end, |(_, last): &(_, Entry<E>)| last.position);
                break;
            }
            let lane = &mut self.lanes[number];
            let Some(entry) = lane.waiting.pop_front() else { continue };
            lane.bytes -= entry.bytes;
            bytes += entry.bytes;
            events.push((number, entry));
            heads.extend(self.head(number).map(|next| Reverse((next, number))));
        }
        Some(Taken { events, end: self.end })
    }

    fn head(&self, lane: usize) -> Option<Position> {
        self.lanes[lane].waiting.front().map(|entry| entry.position)
    }

    /// Up to where events were taken.
    pub(super) fn end(&self) -> Position {
        self.end
    }

    /// Up to where all is known to be published.
    pub(super) fn known(&self) -> Position {
        self.known
    }

    /// Where to read a lane again from, to get all that was not taken.
    pub(super) fn resume(&self, lane: usize) -> i64 {
        let lane = &self.lanes[lane];
        lane.waiting.front().map_or(lane.reached, |entry| entry.offset)
    }

    /// The offset of what is read next.
    pub(super) fn reached(&self, lane: usize) -> i64 {
        self.lanes[lane].reached
    }

    /// The last position that was seen in a lane.
    pub(super) fn last(&self, lane: usize) -> Position {
        self.lanes[lane].last
    }

    /// How many records lie between what was taken and what is known to be published.
    pub(super) fn lag(&self) -> u64 {
        let of = |lane: usize| self.lanes[lane].target.saturating_sub(self.resume(lane));
        (0..self.lanes.len()).map(|lane| u64::try_from(of(lane)).unwrap_or(0)).sum()
    }

    /// How many events wait here, and how much memory they take.
    pub(super) fn waiting(&self) -> (usize, usize) {
        let lanes = self.lanes.iter();
        lanes
            .fold((0, 0), |(events, bytes), lane| (events + lane.waiting.len(), bytes + lane.bytes))
    }

    /// How much memory the events of a lane take.
    pub(super) fn lane_bytes(&self, lane: usize) -> usize {
        self.lanes[lane].bytes
    }

    pub(super) fn lanes(&self) -> usize {
        self.lanes.len()
    }
}

#[cfg(test)]
mod tests;
