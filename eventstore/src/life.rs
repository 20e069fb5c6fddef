//! What becomes of a stream besides growing.

use std::fmt;

use crate::{
    error::Error,
    ids::{StreamId, Version},
};

/// Whether a stream is in use.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum StreamState {
    /// In use.
    #[default]
    Live,
    /// Softly deleted: as if it did not exist, until it is restored. Its events stay in the log.
    Deleted,
    /// Out of the way, until it is restored: its events are read only on request.
    Archived,
}

impl StreamState {
    /// The state that stands for a number in the database.
    pub(crate) fn stored(number: i64) -> Self {
        match number {
            0 => Self::Live,
            1 => Self::Deleted,
            _ => Self::Archived,
        }
    }

    /// The error of who wants to use a stream in this state.
    pub(crate) fn refusal(self, stream: StreamId) -> Error {
        match self {
            Self::Archived => Error::StreamArchived { stream },
            Self::Live | Self::Deleted => Error::StreamDeleted { stream },
        }
    }
}

impl fmt::Display for StreamState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Live => "live",
            Self::Deleted => "deleted",
            Self::Archived => "archived",
        })
    }
}

/// What the store knows about a stream without reading its events.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct StreamInfo {
    /// The version of its last event.
    pub version: Version,
    /// Whether it is in use.
    pub state: StreamState,
}
