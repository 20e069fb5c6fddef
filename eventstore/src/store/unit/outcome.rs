//! What the commands of a unit led to.

use crate::{
    command::Committed,
    ids::{Position, StreamId, Version},
};

/// What an aggregate decided in a unit of work that is not committed yet.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Decided {
    /// The stream.
    pub stream: StreamId,
    /// The stream's version after the command, if the unit is committed.
    pub version: Version,
    /// How many events the command led to.
    pub events: usize,
    /// True if an earlier execution under the same idempotency key led to them.
    pub replayed: bool,
}

/// What a unit of work recorded.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct UnitCommitted {
    /// What each command led to that was not rejected, in the order of their execution.
    pub commands: Vec<Committed>,
    /// The version of each stream that got events, in the order in which the unit came to them.
    pub versions: Vec<(StreamId, Version)>,
    /// The position of its first event; [`Position::START`] if it has none.
    pub first_position: Position,
    /// The position of its last event; [`Position::START`] if it has none.
    pub last_position: Position,
}

/// What a command of a unit led to, until it is committed.
pub(super) enum Slot {
    Known(Committed),
    Repeats(usize),
    Collected { decided: Decided, last: usize },
}

impl Slot {
    pub(super) fn decided(&self, slots: &[Self]) -> Decided {
        match self {
            Self::Collected { decided, .. } => decided.clone(),
            Self::Repeats(earlier) => slots[*earlier].decided(slots),
            Self::Known(committed) => Decided {
                stream: committed.stream.clone(),
                version: committed.version,
                events: committed.events,
                replayed: true,
            },
        }
    }
}

/// The outcomes of the commands, now that the position of the unit's nth event is known.
pub(super) fn outcomes(slots: Vec<Slot>, position: impl Fn(usize) -> Position) -> Vec<Committed> {
    let mut outcomes: Vec<Committed> = Vec::with_capacity(slots.len());
    for slot in slots {
        outcomes.push(match slot {
            Slot::Known(committed) => committed,
            Slot::Repeats(earlier) => Committed { replayed: true, ..outcomes[earlier].clone() },
            Slot::Collected { decided, last } => Committed {
                position: if decided.events == 0 { Position::START } else { position(last) },
                stream: decided.stream,
                version: decided.version,
                events: decided.events,
                replayed: false,
            },
        });
    }
    outcomes
}
