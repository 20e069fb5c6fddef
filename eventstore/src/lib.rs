//! The write side of Annals: events, aggregates, commands and the store that keeps them.
//!
//! A command is executed in three steps: its aggregate is loaded by folding the events of its stream
//! ([`Apply`]), the aggregate decides ([`Handle`]), and what it decided is appended, on the condition
//! that the stream is still at the version that was loaded. [`EventStore::execute`] does all three, and
//! again if the condition fails:
//!
//! ```
//! use annals_eventstore::{Aggregate, Apply, AsOf, Command, Event, EventStore, Handle, Version};
//! use serde::{Deserialize, Serialize};
//!
//! #[derive(Event, Serialize, Deserialize)]
//! enum AccountEvent {
//!     Deposited { amount: i64 },
//! }
//!
//! #[derive(Aggregate, Default)]
//! #[aggregate(category = "account", event = AccountEvent)]
//! struct Account {
//!     balance: i64,
//! }
//!
//! impl Apply<AccountEvent> for Account {
//!     fn apply(&mut self, event: &AccountEvent) {
//!         let AccountEvent::Deposited { amount } = event;
//!         self.balance += amount;
//!     }
//! }
//!
//! #[derive(Command, Serialize, Clone)]
//! #[command(aggregate = Account)]
//! struct Deposit {
//!     #[command(id)]
//!     account: String,
//!     amount: i64,
//! }
//!
//! impl Handle<Deposit> for Account {
//!     fn handle(&self, command: Deposit) -> Result<Vec<AccountEvent>, Self::Error> {
//!         Ok(vec![AccountEvent::Deposited { amount: command.amount }])
//!     }
//! }
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! // In memory, as for a unit test. EventStore::connect(url) is the same on PostgreSQL.
//! let store = EventStore::in_memory();
//! for amount in [100, 20] {
//!     store.execute(Deposit { account: "ada".into(), amount }).await?;
//! }
//! let account = store.load::<Account>("ada").await?.expect("it has events");
//! assert_eq!((account.state.balance, account.version), (120, Version::new(2)));
//!
//! // Time travel: the account as it was.
//! let before = store.load_as_of::<Account>("ada", AsOf::Version(Version::new(1))).await?;
//! assert_eq!(before.expect("it had events").state.balance, 100);
//! # Ok(()) }
//! ```
//!
//! # Where to go from here
//! - [`Envelope`]: metadata, idempotency keys and times for a command
//! - [`EventStore::execute_all`]: many commands in one go
//! - [`EventStore::begin`]: several aggregates and SQL of your own in one transaction
//! - [`Append`] and [`EventStore::append`]: events without commands, for one or several streams
//! - [`EventStore::read`] and [`EventQuery`]: the log itself; [`Cursor`]: to stop and go on later
//! - [`EventStore::delete_stream`], [`archive_stream`](EventStore::archive_stream): the life of streams
//! - [`testkit`]: given, when, then
//! - [`EventStore::verify`]: whether a store is consistent; [`verify`]: what it finds
//! - [`EventShapes`]: a lock file that tells when the stored shape of an event changed
//! - [`trace`]: traces that go on behind the log
//! - [`metrics`]: what a recorder of metrics is told
//! - [`breaker`]: circuit breakers around what fails again and again
//! - [`leader`]: one process at a time, and none that wakes up too late
//! - [`Clock`]: recording times of your own, for tests and for imports of history
//! - [`postgres`]: leases, checkpoints and connections, for readers of the log
#![cfg_attr(feature = "kafka", doc = "- [`kafka`]: publishing the log")]
#![cfg_attr(
    feature = "contracts",
    doc = "- [`contract`]: what is published, as JSON Schema, AsyncAPI and Open Data Contract"
)]
#![cfg_attr(feature = "faults", doc = "- [`testkit::faults`]: faults on purpose, for tests")]
#![cfg_attr(
    feature = "conformance",
    doc = "- [`conformance`]: how every store behaves, as a suite to run, and a checker of histories"
)]

// The derive macros name this crate by its absolute path, also inside it.
extern crate self as annals_eventstore;

mod aggregate;
mod append;
mod backend;
mod backoff;
pub mod breaker;
mod category;
mod clock;
mod command;
#[cfg(feature = "conformance")]
pub mod conformance;
#[cfg(feature = "contracts")]
pub mod contract;
mod error;
mod event;
mod fail_points;
mod ids;
#[cfg(feature = "kafka")]
pub mod kafka;
pub mod leader;
mod life;
mod memory;
pub mod metrics;
pub mod postgres;
mod query;
mod shape;
mod shown;
mod snapshot;
mod store;
pub mod testkit;
pub mod trace;
pub mod verify;

#[doc(no_inline)]
pub use annals_derive::{Aggregate, Command, Event, Shape};
#[cfg(feature = "contracts")]
#[doc(no_inline)]
pub use schemars::{self, JsonSchema};

pub use self::{
    aggregate::{Aggregate, Apply, Loaded},
    append::{Append, Appended, ExpectedVersion, NewEvent},
    category::Category,
    clock::{Clock, ManualClock, TimeSource},
    command::{Command, Committed, Envelope, Handle},
    error::{DecodeError, Error, ExecuteError},
    event::{
        Decoded, DecodedIter, Event, EventType, Metadata, MetadataFields, Payload, Recorded,
        RetiredType, Upcast,
    },
    ids::{MAX_CATEGORY_BYTES, MAX_KEY_BYTES, Position, StreamId, Version},
    life::{StreamInfo, StreamState},
    query::{Archived, EventQuery},
    shape::{EventShapes, LockError, Shape, ShapeChange, ShapeKey, ShapeText},
    shown::Shown,
    snapshot::Snapshots,
    store::{AsOf, Cursor, Decided, EventStore, Options, UnitCommitted, UnitOfWork},
};

/// For the crates of Annals. Not public API.
#[doc(hidden)]
pub use self::backoff::Waits;

/// What the derive macros' output refers to. Not public API.
#[doc(hidden)]
pub mod __private {
    pub use serde_json::Result as JsonResult;

    pub use crate::{
        Aggregate, Command, DecodeError, Decoded, Event, EventType, Payload, RetiredType, Shape,
        ShapeText, Shown, Snapshots, Upcast,
        aggregate::{Copied, NotCopied, State},
        event::read,
        shape::probe,
        shown::{Debugged, NotDebugged, NotWritten, Written},
    };
}
