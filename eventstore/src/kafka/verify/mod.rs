//! Whether the topics hold what the store holds.
//!
//! [`Builder::verify`] reads all topics of a context and the log of the store side by side, in the order of
//! positions, and tells every difference: events that are lost, repeated, out of order, altered or
//! misplaced, and records of events that the store does not have.
//!
//! ```no_run
//! # async fn run() -> Result<(), annals_eventstore::Error> {
//! use annals_eventstore::{EventStore, kafka::Publisher};
//!
//! let store = EventStore::connect("postgres://localhost/app").await?;
//! // As the publisher is built.
//! let publisher = Publisher::builder("localhost:9092", "lending").partitions(8);
//! let verification = publisher.verify(&store)?.run().await?;
//! for finding in &verification.findings {
//!     println!("{finding}\n  {}", finding.advice());
//! }
//! assert!(verification.is_sound());
//! # Ok(()) }
//! ```
//!
//! # What counts
//! - It sees what a consumer with `isolation.level=read_committed` sees.
//! - What the publisher has noted as published, in its progress topic or its checkpoint, must be there. Of
//!   what lies above that, as while a publisher is at work, an event may be missing only if no later one
//!   of its partition is there.
//! - Published exactly once, an event that is there twice is a finding. Published at least once
//!   ([`Builder::delivery`]), it is counted.
//! - Events that are older than the oldest record of a partition, where records have been deleted, are
//!   counted as expired. A topic that is compacted has lost events, and is told so.
//! - Events of streams that are archived may be there or not. A stream that was archived before the first
//!   publisher began and is restored now is told as lost: consumers do not have it.
//!
//! # What it takes
//! It writes nothing, may run at any time, and holds a page of events and some megabytes of records for each
//! partition at most. It reads the log and the topics once, from their beginning, on a connection of
//! [`Use::Rebuild`](crate::postgres::Use::Rebuild), which has no limit of time unless set.

mod finding;
mod ledger;
mod outcome;
mod reader;
mod record;
mod walk;

pub use self::{
    finding::{Finding, Place, Subject},
    outcome::{Progress, Topic, Verification},
    record::Part,
};

use self::{outcome::Report, walk::Walk};
use super::{Builder, Publisher};
use crate::{error::Error, postgres::Use, store::EventStore};

/// A verification of the topics of a store that is about to run. Get it from [`Builder::verify`].
#[must_use = "it verifies nothing until it is run"]
pub struct Verify {
    publisher: Publisher,
    max_findings: usize,
    report: Option<Report>,
}

impl std::fmt::Debug for Verify {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Verify").field("publisher", &self.publisher).finish_non_exhaustive()
    }
}

impl Builder {
    /// Compares the topics with the store, instead of publishing to them. The settings must be those of the
    /// publisher: they say what should be where. See the [module](self).
    ///
    /// # Errors
    /// As [`build`](Self::build).
    pub fn verify(self, store: &EventStore) -> Result<Verify, Error> {
        let mut publisher = self.build(store)?;
        publisher.store = store.using(Use::Rebuild);
        Ok(Verify { publisher, max_findings: 1000, report: None })
    }
}

impl Verify {
    /// How many findings are kept: 1,000 unless set. The others are counted.
    pub fn max_findings(mut self, findings: usize) -> Self {
        self.max_findings = findings;
        self
    }

    /// Calls a function now and then with how far the verification has come.
    pub fn on_progress(mut self, report: impl FnMut(Progress) + Send + 'static) -> Self {
        self.report = Some(Box::new(report));
        self
    }

    /// Runs it. Cancellation safe: it changes nothing, so dropping the future only ends it.
    ///
    /// # Errors
    /// If the database or the broker cannot be reached or fails. What is wrong with the topics is no
    /// error but a [`Finding`].
    pub async fn run(self) -> Result<Verification, Error> {
        Walk::start(&self.publisher, self.max_findings, self.report).await?.run().await
    }
}
