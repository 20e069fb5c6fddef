//! Snapshots: the state of an aggregate at a version, so that a load need not fold its whole history.
//!
//! A snapshot is a copy that can be thrown away at any time: loading with it equals folding all
//! events. It is written after the append that made it due, in a transaction of its own, and a write
//! that fails costs nothing but time at a later load.

use std::{fmt, time::Duration};

use serde::{Serialize, de::DeserializeOwned};
use sha2::{Digest, Sha256};

use crate::{aggregate::Aggregate, command::Fingerprint, event::Event};

/// How an aggregate's state is kept in snapshots.
///
/// The derive macro writes it from `#[snapshot(..)]`; the state is stored as JSON, by its own
/// `Serialize` and `Deserialize`.
///
/// ```
/// # use annals_eventstore::{Aggregate, Apply, Event};
/// # use serde::{Deserialize, Serialize};
/// # #[derive(Event, Serialize, Deserialize)]
/// # enum AccountEvent { Deposited { amount: i64 } }
/// #[derive(Aggregate, Default, Serialize, Deserialize)]
/// #[aggregate(category = "account", event = AccountEvent)]
/// #[snapshot(every = 100)]
/// struct Account {
///     balance: i64,
/// }
/// # impl Apply<AccountEvent> for Account {
/// #     fn apply(&mut self, event: &AccountEvent) {
/// #         let AccountEvent::Deposited { amount } = event;
/// #         self.balance += amount;
/// #     }
/// # }
/// ```
pub struct Snapshots<A> {
    pub(crate) name: &'static str,
    version: u32,
    pub(crate) every: Option<u32>,
    pub(crate) after: Option<Duration>,
    pub(crate) keep: Option<u32>,
    pub(crate) encode: fn(&A) -> serde_json::Result<Vec<u8>>,
    pub(crate) decode: fn(&[u8]) -> serde_json::Result<A>,
}

impl<A> Snapshots<A> {
    /// Snapshots that are taken by hand only, see
    /// [`EventStore::snapshot`](crate::EventStore::snapshot). The name tells the aggregates of one
    /// category apart.
    pub const fn new(name: &'static str) -> Self
    where
        A: Serialize + DeserializeOwned,
    {
        Self {
            name,
            version: 1,
            every: None,
            after: None,
            keep: None,
            encode: |state| serde_json::to_vec(state),
            decode: |json| serde_json::from_slice(json),
        }
    }

    /// Takes one whenever this many events have come since the last one.
    #[must_use]
    pub const fn every(mut self, events: u32) -> Self {
        self.every = Some(events);
        self
    }

    /// Takes one when a load spent longer than this, in fetching and folding together.
    #[must_use]
    pub const fn after(mut self, spent: Duration) -> Self {
        self.after = Some(spent);
        self
    }

    /// Keeps only so many of the latest of each stream. All are kept unless set: loads as of a moment
    /// of the past start from the nearest one below.
    #[must_use]
    pub const fn keep(mut self, snapshots: u32) -> Self {
        self.keep = Some(snapshots);
        self
    }

    /// Raise it when the fold changes and the shape of the state does not: older snapshots are then
    /// ignored and replaced.
    #[must_use]
    pub const fn version(mut self, version: u32) -> Self {
        self.version = version;
        self
    }

    /// True if a snapshot is due that many events after the last one, or after such a load.
    pub(crate) fn is_due(&self, events: i64, spent: Duration) -> bool {
        self.every.is_some_and(|every| events >= i64::from(every))
            || (events > 0 && self.after.is_some_and(|after| spent > after))
    }
}

impl<A: Aggregate> Snapshots<A> {
    /// What a stored snapshot must bear to be used: it stands for the shape of the state, and for what
    /// has become of its events.
    pub(crate) fn kind(&self) -> SnapshotKind {
        let mut hash = Sha256::new();
        hash.update(self.version.to_le_bytes());
        hash.update(A::shape());
        // An event that was brought up may be folded otherwise than before.
        for kind in A::Event::TYPES.iter().filter(|kind| kind.version > 1) {
            hash.update(kind.name);
            hash.update(kind.version.to_le_bytes());
        }
        for kind in A::Event::RETIRED {
            hash.update(kind.name);
            hash.update(kind.version.to_le_bytes());
        }
        SnapshotKind { name: self.name, fingerprint: hash.finalize().into() }
    }
}

impl<A> fmt::Debug for Snapshots<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Snapshots")
            .field("name", &self.name)
            .field("version", &self.version)
            .field("every", &self.every)
            .field("after", &self.after)
            .field("keep", &self.keep)
            .finish_non_exhaustive()
    }
}

/// Whose state a snapshot holds, and in which shape.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SnapshotKind {
    pub(crate) name: &'static str,
    pub(crate) fingerprint: Fingerprint,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_is_due_after_so_many_events_or_after_a_slow_load_of_new_ones() {
        const LIMIT: Duration = Duration::from_millis(20);
        let longer = LIMIT + Duration::from_micros(1);
        let by_hand = || Snapshots::<i64>::new("test");
        let due = |snapshots: Snapshots<i64>| {
            [(2, LIMIT), (3, LIMIT), (4, Duration::ZERO), (1, longer), (0, longer)]
                .map(|(events, spent)| snapshots.is_due(events, spent))
        };
        assert_eq!(due(by_hand()), [false; 5]);
        assert_eq!(due(by_hand().every(3)), [false, true, true, false, false]);
        // Without new events it would be the one that is there.
        assert_eq!(due(by_hand().after(LIMIT)), [false, false, false, true, false]);
        assert_eq!(due(by_hand().every(3).after(LIMIT)), [false, true, true, true, false]);
    }
}
