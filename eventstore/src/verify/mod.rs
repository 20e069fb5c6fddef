//! Whether a store is what it promises to be: looked at from outside, beside the work.

mod audit;
mod finding;
mod outcome;
mod subject;

use std::{fmt, time::Duration};

pub(crate) use self::{
    audit::{Entry, LogAudit},
    outcome::Recorder,
    subject::{Compared, Fold, Subject, Subjects, undecodable},
};
pub use self::{
    finding::Finding,
    outcome::{Check, Checked, Progress, Registration, Unchecked, Verification},
};
use crate::{aggregate::Aggregate, error::Error, store::EventStore};

/// A verification of a store that is yet to run. Get it from [`EventStore::verify`].
#[must_use = "a verification does nothing until it is run"]
pub struct Verify {
    store: EventStore,
    plan: Plan,
    max_findings: usize,
    progress: Option<outcome::Report>,
}

/// What is to be looked at, and how.
pub(crate) struct Plan {
    pub(crate) subjects: Subjects,
    pub(crate) stuck_after: Duration,
}

impl fmt::Debug for Verify {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let categories: Vec<_> = self.plan.subjects.iter().map(Subject::category).collect();
        f.debug_struct("Verify")
            .field("store", &self.store)
            .field("categories", &categories)
            .finish()
    }
}

impl EventStore {
    /// Checks that the store is consistent: that versions have no holes, positions are unique, time does
    /// not go back, the registry of appends is healthy, events are guarded against changes, idempotency
    /// keys point at events, events can be decoded, and snapshots are the folds of their events.
    ///
    /// It may run at any time, also while events are appended, deleted, archived and restored: it finds
    /// nothing wrong with a sound store. It only reads, locks nobody out, and holds a page of events in
    /// memory at most. It looks at what is at or below the safe position when it begins.
    ///
    /// Events are decoded, and snapshots compared, of the [given aggregates](Verify::aggregate) only.
    /// Of what was not looked at, [`Verification::unchecked`] tells. What nobody can find is an event that
    /// is gone together with its stream's row, or with all that came after it and the stream's version
    /// set back: compare with a backup, or with Kafka.
    ///
    /// On PostgreSQL it reads on a connection of [`Use::Rebuild`](crate::postgres::Use::Rebuild), which has
    /// no limit of time unless set. The owner of the schema sees everything; of other roles, what they
    /// may not see is unchecked. In memory, where nobody else can get at the log, it looks at the log, the
    /// streams and the payloads.
    ///
    /// ```
    /// # use annals_eventstore::{Aggregate, Apply, Event};
    /// # use serde::{Deserialize, Serialize};
    /// # #[derive(Event, Serialize, Deserialize)]
    /// # enum AccountEvent { Deposited { amount: i64 } }
    /// # #[derive(Aggregate, Default)]
    /// # #[aggregate(category = "account", event = AccountEvent)]
    /// # struct Account;
    /// # impl Apply<AccountEvent> for Account { fn apply(&mut self, _: &AccountEvent) {} }
    /// use annals_eventstore::EventStore;
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), annals_eventstore::Error> {
    /// let store = EventStore::in_memory();
    /// let verification = store.verify().aggregate::<Account>().run().await?;
    /// for finding in &verification.findings {
    ///     println!("{finding}\n  {}", finding.advice());
    /// }
    /// assert!(verification.is_sound());
    /// # Ok(()) }
    /// ```
    pub fn verify(&self) -> Verify {
        let plan = Plan { subjects: Subjects::default(), stuck_after: Duration::from_secs(60) };
        Verify { store: self.clone(), plan, max_findings: 1000, progress: None }
    }
}

impl Verify {
    /// Also decodes the events of an aggregate, and compares its snapshots with the folds of their
    /// events.
    pub fn aggregate<A: Aggregate>(mut self) -> Self {
        self.plan.subjects.add(Box::new(subject::Typed::<A>::new()));
        self
    }

    /// How long an append may be in flight before that is a finding: a minute unless set.
    pub fn stuck_after(mut self, age: Duration) -> Self {
        self.plan.stuck_after = age;
        self
    }

    /// How many findings are kept: 1,000 unless set. The others are counted.
    pub fn max_findings(mut self, findings: usize) -> Self {
        self.max_findings = findings;
        self
    }

    /// Calls a function now and then with how far the verification has come.
    pub fn on_progress(mut self, report: impl FnMut(Progress) + Send + 'static) -> Self {
        self.progress = Some(Box::new(report));
        self
    }

    /// Runs it. Cancellation safe: it changes nothing, so dropping the future only ends it.
    ///
    /// # Errors
    /// If the database cannot be reached or fails, as on a standby, whose log cannot be told to be
    /// complete. What is wrong with the store is no error but a [`Finding`].
    pub async fn run(self) -> Result<Verification, Error> {
        let mut recorder = Recorder::new(self.max_findings, self.progress);
        match self.store.database() {
            Ok(database) => crate::postgres::verify(database, &self.plan, &mut recorder).await?,
            Err(_) => audit::in_memory(&self.store, &self.plan, &mut recorder).await?,
        }
        Ok(recorder.finish())
    }
}
