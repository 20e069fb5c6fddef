//! What is known of a partition while it is read along with the log; pure.

use std::collections::BTreeMap;

use super::{Subject, record::Record};
use crate::{event::Recorded, ids::Position};

/// So many missing events are remembered, in case that they come late. Of more, the first count as
/// lost.
const REMEMBERED: usize = 10_000;

/// How the next record of a partition relates to the next event that belongs there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Meeting {
    /// It is the event's.
    Its,
    /// It is of a later event, if it is of any.
    Later,
    /// It is of an earlier one, or of none.
    Stray,
}

impl Meeting {
    pub(super) fn of(record: &Record, event: &Recorded) -> Self {
        match record.position() {
            Some(position) if position > event.position => Self::Later,
            Some(_) if record.is_of(event) => Self::Its,
            _ => Self::Stray,
        }
    }
}

/// Why an event of the store comes where another one was due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Late {
    /// It was missed before: a record with this position came first.
    After(Position),
    /// It was there before.
    Again,
}

/// The events of a partition that came, and those that did not.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    /// The last event that came in its place.
    pub(super) last: Position,
    missing: BTreeMap<Position, Subject>,
}

impl Ledger {
    /// The next event has come.
    pub(super) fn came(&mut self, position: Position) {
        self.last = position;
    }

    /// The next event has not come. Returns one that will not come any more.
    pub(super) fn missed(&mut self, event: Subject) -> Option<Subject> {
        self.missing.insert(event.position, event);
        if self.missing.len() <= REMEMBERED {
            return None;
        }
        self.missing.pop_first().map(|(_, event)| event)
    }

    /// An event has come that was not the next.
    pub(super) fn late(&mut self, position: Position) -> Late {
        match self.missing.remove(&position) {
            Some(_) => Late::After(self.last),
            None => Late::Again,
        }
    }

    /// Those that have not come at the end.
    pub(super) fn close(&mut self) -> impl Iterator<Item = Subject> + use<> {
        std::mem::take(&mut self.missing).into_values()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::{StreamId, Version};

    fn subject(position: i64) -> Subject {
        let stream = StreamId::new("loan", 1).unwrap();
        Subject { stream, version: Version::new(position), position: Position::new(position) }
    }

    #[test]
    fn an_event_that_comes_late_was_missed_before_or_is_there_again() {
        let mut ledger = Ledger::default();
        let at = Position::new;
        ledger.came(at(1));
        assert_eq!(ledger.missed(subject(2)), None);
        ledger.came(at(3));
        assert_eq!(ledger.late(at(2)), Late::After(at(3)));
        assert_eq!(ledger.late(at(2)), Late::Again);
        assert_eq!(ledger.late(at(1)), Late::Again);
        ledger.missed(subject(4));
        assert_eq!(ledger.close().map(|event| event.position).collect::<Vec<_>>(), [at(4)]);
    }

    #[test]
    fn what_is_remembered_has_a_bound() {
        let mut ledger = Ledger::default();
        for position in 1..=REMEMBERED as i64 {
            assert_eq!(ledger.missed(subject(position)), None);
        }
        assert_eq!(ledger.missed(subject(REMEMBERED as i64 + 1)), Some(subject(1)));
        assert_eq!(ledger.close().count(), REMEMBERED);
    }
}
