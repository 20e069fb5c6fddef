//! What can be wrong with topics.

use std::fmt;

use super::Part;
use crate::ids::{Position, StreamId, Version};

/// The place of a record.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// The topic.
    pub topic: String,
    /// The partition.
    pub partition: i32,
    /// The offset.
    pub offset: i64,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}[{}] at offset {}", self.topic, self.partition, self.offset)
    }
}

/// An event of the store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Subject {
    /// Its stream.
    pub stream: StreamId,
    /// Its version.
    pub version: Version,
    /// Its position.
    pub position: Position,
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { stream, version, position } = self;
        write!(f, "event {version} of stream {stream}, at position {position}")
    }
}

/// Something that is wrong with what is published. Its text says what and where;
/// [`advice`](Self::advice) says what to do.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Finding {
    /// An event is not in its topic, although it, or a later one of its partition, counts as
    /// published.
    Lost {
        /// The event.
        event: Subject,
        /// Where it should be.
        topic: String,
    },
    /// An event is there more than once. At least once, that is no finding.
    Repeated {
        /// The event.
        event: Subject,
        /// Where it is again.
        at: Place,
    },
    /// An event comes after a later one of its partition: consumers that drop repeats drop it.
    OutOfOrder {
        /// The event.
        event: Subject,
        /// Where it is.
        at: Place,
        /// The position of the record that comes before it and should come after.
        after: Position,
    },
    /// A record is not what the publisher makes of its event.
    Altered {
        /// The event.
        event: Subject,
        /// Where it is.
        at: Place,
        /// What is different, the first of it.
        part: Part,
    },
    /// An event is in another topic or partition than its stream.
    Misplaced {
        /// The event.
        event: Subject,
        /// Where it is.
        at: Place,
        /// The topic that it belongs to.
        topic: String,
    },
    /// An event is there that the publisher's options leave out.
    Withheld {
        /// The event.
        event: Subject,
        /// Where it is.
        at: Place,
    },
    /// A record is of no event of the store: of one that was never committed, or of another store.
    Foreign {
        /// Where it is.
        at: Place,
        /// The position that it says it has.
        position: Position,
    },
    /// A record does not say of which event it is.
    Unreadable {
        /// Where it is.
        at: Place,
    },
}

impl Finding {
    /// A name of this kind of finding that stays, for programs.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Lost { .. } => "lost",
            Self::Repeated { .. } => "repeated",
            Self::OutOfOrder { .. } => "out_of_order",
            Self::Altered { .. } => "altered",
            Self::Misplaced { .. } => "misplaced",
            Self::Withheld { .. } => "withheld",
            Self::Foreign { .. } => "foreign",
            Self::Unreadable { .. } => "unreadable",
        }
    }

    /// The event that it is about, if that is one of the store.
    pub fn event(&self) -> Option<&Subject> {
        match self {
            Self::Lost { event, .. }
            | Self::Repeated { event, .. }
            | Self::OutOfOrder { event, .. }
            | Self::Altered { event, .. }
            | Self::Misplaced { event, .. }
            | Self::Withheld { event, .. } => Some(event),
            Self::Foreign { .. } | Self::Unreadable { .. } => None,
        }
    }

    /// The record that it is about, if there is one.
    pub fn place(&self) -> Option<&Place> {
        match self {
            Self::Lost { .. } => None,
            Self::Repeated { at, .. }
            | Self::OutOfOrder { at, .. }
            | Self::Altered { at, .. }
            | Self::Misplaced { at, .. }
            | Self::Withheld { at, .. }
            | Self::Foreign { at, .. }
            | Self::Unreadable { at } => Some(at),
        }
    }

    /// What to do about it, in a sentence or two.
    pub fn advice(&self) -> &'static str {
        match self {
            Self::Lost { .. } => {
                "If somebody deleted records or topics, publish the store to topics of a new context and \
                 move the consumers. Else it is a fault of the publisher: report it."
            }
            Self::Repeated { .. } => {
                "Consumers that keep the last position of each partition drop it. If the topic was ever \
                 published at least once, verify it as such."
            }
            Self::OutOfOrder { .. } => {
                "Consumers that keep the last position of each partition have dropped it: let them read \
                 the store, or publish it to topics of a new context."
            }
            Self::Altered { .. } => {
                "Compare the settings of the publisher with those given here, and its version. Else \
                 find out who else writes to the topic."
            }
            Self::Misplaced { .. } => {
                "Find out whether the topic was given more partitions, or the publisher other routes, \
                 after the first events were published: the order of streams does not survive that."
            }
            Self::Withheld { .. } => {
                "Compare the categories, filters and mappings of the publisher with those given here. If they \
                 were changed, it was published before: consumers have it."
            }
            Self::Foreign { .. } => {
                "Find out who else writes to the topic, and whether the store was set back to a backup \
                 after it was published."
            }
            Self::Unreadable { .. } => "Find out who else writes to the topic.",
        }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Lost { event, topic } => write!(f, "lost: {event} is not in {topic}"),
            Self::Repeated { event, at } => write!(f, "repeated: {event} is again in {at}"),
            Self::OutOfOrder { event, at, after } => {
                write!(f, "out of order: {event} comes after position {after}, in {at}")
            }
            Self::Altered { event, at, part } => {
                write!(f, "altered: {part} of {event} is another one in {at}")
            }
            Self::Misplaced { event, at, topic } => {
                write!(f, "misplaced: {event} belongs elsewhere in {topic}, and is in {at}")
            }
            Self::Withheld { event, at } => {
                write!(f, "withheld: {event} is not to be published, and is in {at}")
            }
            Self::Foreign { at, position } => {
                write!(f, "foreign: {at} is a record of position {position}, and of no event there")
            }
            Self::Unreadable { at } => {
                write!(f, "unreadable: {at} is a record that does not say of which event it is")
            }
        }
    }
}
