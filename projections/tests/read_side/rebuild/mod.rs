//! Read models that are built anew beside those in use.

mod automatic;
mod compare;
mod crashes;
mod dependents;
mod exact;
mod failing;
mod pace;
mod readers;
mod swap;

use annals_eventstore::{EventStore, Recorded};
use annals_projections::{Change, KeyError, Keys, Project, ReadModel, Rebuild};
use rand::{Rng, rngs::StdRng};
use serde::Serialize;

use crate::support::{
    lease,
    ledger::{Audit, AuditEvent, Ledger, LedgerEvent, append},
    load::append_some,
};

/// Without history, with a key of two columns, and an index.
#[derive(ReadModel, Serialize, Clone, Debug, PartialEq)]
#[read_model(table = "pairs", from(Ledger, Audit), index(events, total))]
struct Pair {
    #[read_model(key)]
    ledger: String,
    #[read_model(key)]
    even: bool,
    events: i64,
    total: i64,
    trail: i64,
}

impl Pair {
    fn next<E>(row: Option<Self>, key: &(String, bool), event: &Recorded<E>, by: i64) -> Self {
        let (ledger, even) = key.clone();
        let row = row.unwrap_or(Self { ledger, even, events: 0, total: 0, trail: 0 });
        let trail = row.trail.wrapping_mul(31).wrapping_add(event.position.get());
        Self { events: row.events + 1, total: row.total + by, trail, ..row }
    }
}

impl Project<LedgerEvent> for Pair {
    fn keys(event: &Recorded<LedgerEvent>) -> Result<Keys<(String, bool)>, KeyError> {
        let key = event.stream.key().to_owned();
        Ok(match &event.event {
            LedgerEvent::Added { amount } => Keys::one((key, amount % 2 == 0)),
            LedgerEvent::Shared { ledgers, amount } => {
                Keys::many(ledgers.iter().map(|ledger| (ledger.clone(), amount % 2 == 0)))
            }
            LedgerEvent::Noted => Keys::none(),
            LedgerEvent::Closed => Keys::many([(key.clone(), true), (key, false)]),
        })
    }

    fn project(_: Option<Self>, _: &Recorded<LedgerEvent>) -> Change<Self> {
        unreachable!("project_row is there")
    }

    fn project_row(
        key: &(String, bool),
        row: Option<Self>,
        event: &Recorded<LedgerEvent>,
    ) -> Change<Self> {
        match &event.event {
            LedgerEvent::Added { amount } | LedgerEvent::Shared { amount, .. } => {
                Change::Set(Self::next(row, key, event, *amount))
            }
            LedgerEvent::Noted => Change::Keep,
            LedgerEvent::Closed => Change::Delete,
        }
    }
}

impl Project<AuditEvent> for Pair {
    fn keys(event: &Recorded<AuditEvent>) -> Result<Keys<(String, bool)>, KeyError> {
        let AuditEvent::Passed { ledger } = &event.event;
        Ok(Keys::one((ledger.clone(), true)))
    }

    fn project(row: Option<Self>, event: &Recorded<AuditEvent>) -> Change<Self> {
        let AuditEvent::Passed { ledger } = &event.event;
        Change::Set(Self::next(row, &(ledger.clone(), true), event, 0))
    }
}

/// In slices: a ledger's own events only.
#[derive(ReadModel, Serialize, Clone, Debug, PartialEq)]
#[read_model(table = "owns", from(Ledger), history, slices = 4)]
struct Own {
    #[read_model(key)]
    ledger: String,
    events: i64,
    trail: i64,
}

impl Project<LedgerEvent> for Own {
    fn project(row: Option<Self>, event: &Recorded<LedgerEvent>) -> Change<Self> {
        if event.event == LedgerEvent::Closed {
            return Change::Delete;
        }
        let ledger = event.stream.key().to_owned();
        let row = row.unwrap_or(Self { ledger, events: 0, trail: 0 });
        let trail = row.trail.wrapping_mul(31).wrapping_add(event.position.get());
        Change::Set(Self { events: row.events + 1, trail, ..row })
    }
}

/// A rebuild whose lease no stall of the machine ends.
fn rebuild<R: ReadModel>(store: &EventStore) -> Rebuild<R> {
    Rebuild::of(store).lease(lease(30_000))
}

/// Appends events of many ledgers, some of which share rows.
async fn append_many(store: &EventStore, rng: &mut StdRng, appends: usize) {
    for _ in 0..appends {
        if rng.random_range(0..3) == 0 {
            append_some(store, rng).await;
            continue;
        }
        let key = format!("l{}", rng.random_range(0..40));
        let events = (0..rng.random_range(1..20)).map(|_| match rng.random_range(0..12) {
            0 => LedgerEvent::Closed,
            1 => LedgerEvent::Noted,
            2 => {
                let ledgers =
                    [key.clone(), "a".to_owned(), format!("l{}", rng.random_range(0..40))];
                LedgerEvent::Shared { ledgers: ledgers.to_vec(), amount: rng.random_range(0..9) }
            }
            _ => LedgerEvent::Added { amount: rng.random_range(0..100) },
        });
        let events: Vec<_> = events.collect();
        append::<Ledger>(store, &key, events).await;
    }
}
