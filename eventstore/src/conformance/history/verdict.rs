//! What can be wrong with a history.

use std::{collections::BTreeMap, fmt};

use uuid::Uuid;

use super::{Place, Seen};
use crate::ids::Position;

/// What a history shows.
#[derive(Clone, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct Verdict {
    /// How many appends were acknowledged.
    pub acknowledged: usize,
    /// How many were refused or rolled back.
    pub refused: usize,
    /// Of how many it is not known.
    pub indeterminate: usize,
    /// How many events the log has.
    pub events: usize,
    /// How many events readers saw, all together.
    pub seen: usize,
    /// How often readers started again.
    pub restarts: usize,
    /// How far each reader came.
    pub reached: BTreeMap<String, Position>,
    /// What is wrong.
    pub violations: Vec<Violation>,
}

impl Verdict {
    /// True if nothing is wrong.
    pub fn is_sound(&self) -> bool {
        self.violations.is_empty()
    }
}

impl fmt::Display for Verdict {
    /// At most twenty violations, and then a line of figures.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for violation in self.violations.iter().take(20) {
            writeln!(f, "{violation}")?;
        }
        write!(
            f,
            "{}: {} appends acknowledged, {} refused, {} unknown; {} events in the log, {} seen by \
             readers, which started again {} times; {} violations",
            if self.is_sound() { "SOUND" } else { "BROKEN" },
            self.acknowledged,
            self.refused,
            self.indeterminate,
            self.events,
            self.seen,
            self.restarts,
            self.violations.len()
        )
    }
}

/// One thing that must not be.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum Violation {
    /// The history itself cannot be judged.
    #[error("the history makes no sense: {0}")]
    Malformed(String),
    /// An acknowledged event is not in the log.
    #[error("lost: event {id} of {stream} was acknowledged at position {} and is not in the log", place.position)]
    Lost {
        /// The event.
        id: Uuid,
        /// Its stream.
        stream: String,
        /// Where it was said to be.
        place: Place,
    },
    /// An event is in the log more than once.
    #[error("repeated: event {id} is in the log at {first} and at {second}")]
    RecordedTwice {
        /// The event.
        id: Uuid,
        /// Its first position.
        first: Position,
        /// Its second position.
        second: Position,
    },
    /// An event is in the log that nobody appended, or in another stream.
    #[error("invented: nobody appended event {} to {} (position {})", .0.id, .0.stream, .0.place.position)]
    Invented(Seen),
    /// An event of a refused or rolled-back append can be read.
    #[error("aborted: event {} of {} was refused and can be read at {}", .0.id, .0.stream, .0.place.position)]
    Aborted(Seen),
    /// An append of unknown outcome is recorded in part.
    #[error("torn: of the {of} events of append {append}, {recorded} are recorded")]
    Torn {
        /// The append.
        append: Uuid,
        /// How many are in the log.
        recorded: usize,
        /// How many it has.
        of: usize,
    },
    /// An event is elsewhere than was acknowledged.
    #[error("misplaced: event {} was acknowledged at {acknowledged:?}, it is at {:?}", .recorded.id, .recorded.place)]
    Misplaced {
        /// Where it was said to be.
        acknowledged: Place,
        /// As it is.
        recorded: Seen,
    },
    /// The log's positions do not rise.
    #[error("disordered: the log has position {} after {after}", .event.place.position)]
    Disordered {
        /// The position before it.
        after: Position,
        /// The event.
        event: Seen,
    },
    /// A stream's versions are not 1, 2, 3.
    #[error("versions: {} should come to version {expected}, it has {} at position {}",
        .event.stream, .event.place.version, .event.place.position)]
    Versions {
        /// The version that was its turn.
        expected: i64,
        /// The event.
        event: Seen,
    },
    /// The recording time goes back.
    #[error("time goes back: at position {} it is {}", .event.place.position, .event.recorded_at)]
    TimeWentBack {
        /// The event.
        event: Seen,
    },
    /// The events of an append are not in its order.
    #[error("reordered: the events of append {append} are not in their order")]
    Reordered {
        /// The append.
        append: Uuid,
    },
    /// An append that began after another was acknowledged stands before it.
    #[error(
        "reordered: append {later} began after {earlier} was acknowledged and stands before it"
    )]
    OutOfTime {
        /// The append acknowledged first.
        earlier: Uuid,
        /// The append that began after that.
        later: Uuid,
    },
    /// A reader went past an event without seeing it, so it never will.
    #[error("skipped: {reader} went past {up_to} without event {} at {}", .event.id, .event.place.position)]
    Skipped {
        /// The reader.
        reader: String,
        /// How far it went.
        up_to: Position,
        /// The event.
        event: Seen,
    },
    /// A reader saw what the log does not have, or has otherwise.
    #[error("different: {reader} saw event {} of {} at {}, the log does not have it so",
        .event.id, .event.stream, .event.place.position)]
    Different {
        /// The reader.
        reader: String,
        /// As it saw it.
        event: Seen,
    },
    /// A reader saw an event that does not come next: again, out of order, or not asked for.
    #[error("out of turn: {reader} saw event {} at {} after {after}", .event.id, .event.place.position)]
    OutOfTurn {
        /// The reader.
        reader: String,
        /// Where it was.
        after: Position,
        /// The event.
        event: Seen,
    },
}
