//! The write side of Annals: events, aggregates, commands and the store that keeps them.

// The derive macros name this crate by its absolute path, also inside it.
extern crate self as annals_eventstore;

mod aggregate;
mod append;
mod backend;
mod clock;
mod command;
mod error;
mod event;
mod ids;
#[cfg(feature = "kafka")]
pub mod kafka;
mod memory;
pub mod postgres;
mod store;
pub mod testkit;

#[doc(no_inline)]
pub use annals_derive::{Aggregate, Command, Event};

pub use self::{
    aggregate::{Aggregate, Apply, Loaded},
    append::{Append, Appended, ExpectedVersion, NewEvent},
    clock::{Clock, ManualClock, TimeSource},
    command::{Command, Committed, Envelope, Handle},
    error::{DecodeError, Error, ExecuteError},
    event::{Event, EventType, Metadata, Payload, Recorded},
    ids::{MAX_CATEGORY_BYTES, MAX_KEY_BYTES, Position, StreamId, Version},
    store::{AsOf, EventStore, Options},
};

/// What the derive macros' output refers to. Not public API.
#[doc(hidden)]
pub mod __private {
    pub use crate::{Aggregate, Command, Event, EventType};
}
