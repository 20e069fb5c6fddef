//! Random events, many at a time, from a seed that a failing test prints.

use std::{sync::Arc, time::Duration};

use annals_eventstore::EventStore;
use rand::{Rng, SeedableRng, rngs::StdRng};
use tokio::task::JoinSet;

use super::account::move_some;
use super::ledger::{Audit, AuditEvent, Ledger, LedgerEvent, append, unrelated};

const LEDGERS: [&str; 6] = ["a", "b", "c", "d", "e", "f"];

pub(crate) fn seeded() -> (u64, StdRng) {
    let seed = std::env::var("ANNALS_TEST_SEED").ok().and_then(|seed| seed.parse().ok());
    let seed = seed.unwrap_or_else(rand::random);
    println!("ANNALS_TEST_SEED={seed}");
    (seed, StdRng::seed_from_u64(seed))
}

fn ledger(rng: &mut StdRng) -> String {
    LEDGERS[rng.random_range(0..LEDGERS.len())].to_owned()
}

fn event(rng: &mut StdRng) -> LedgerEvent {
    match rng.random_range(0..10) {
        0 => LedgerEvent::Closed,
        1 => LedgerEvent::Noted,
        2..5 => {
            let count = rng.random_range(0..4);
            let ledgers = (0..count).map(|_| ledger(rng)).collect();
            LedgerEvent::Shared { ledgers, amount: rng.random_range(-5..50) }
        }
        _ => LedgerEvent::Added { amount: rng.random_range(-5..50) },
    }
}

/// Appends one to a few events to one stream.
pub(crate) async fn append_some(store: &EventStore, rng: &mut StdRng) {
    let key = ledger(rng);
    match rng.random_range(0..8) {
        0 => drop(unrelated(store, &key).await),
        1 => {
            let events = [AuditEvent::Passed { ledger: ledger(rng) }];
            append::<Audit>(store, &key, events).await;
        }
        _ => {
            let events: Vec<_> = (0..rng.random_range(1..4)).map(|_| event(rng)).collect();
            append::<Ledger>(store, &key, events).await;
        }
    }
}

#[derive(Clone, Copy)]
enum Kind {
    Ledgers,
    Accounts,
}

/// Writers that append until they are told how many appends are enough.
pub(crate) struct Load(JoinSet<()>);

impl Load {
    /// Starts writers that make so many appends each.
    pub(crate) fn start(store: &EventStore, seed: u64, writers: u64, appends: usize) -> Self {
        Self::of(store, seed, writers, appends, Kind::Ledgers)
    }

    /// The same of appends to accounts.
    pub(crate) fn of_accounts(store: &EventStore, seed: u64, appends: usize) -> Self {
        Self::of(store, seed, 3, appends, Kind::Accounts)
    }

    fn of(store: &EventStore, seed: u64, writers: u64, appends: usize, kind: Kind) -> Self {
        let store = Arc::new(store.clone());
        let mut tasks = JoinSet::new();
        for writer in 0..writers {
            let store = store.clone();
            tasks.spawn(async move {
                let mut rng = StdRng::seed_from_u64(seed.wrapping_add(writer));
                for _ in 0..appends {
                    match kind {
                        Kind::Ledgers => append_some(&store, &mut rng).await,
                        Kind::Accounts => move_some(&store, &mut rng).await,
                    }
                    tokio::time::sleep(Duration::from_micros(rng.random_range(0..3000))).await;
                }
            });
        }
        Self(tasks)
    }

    pub(crate) fn is_done(&mut self) -> bool {
        while let Some(ended) = self.0.try_join_next() {
            ended.unwrap();
        }
        self.0.is_empty()
    }

    pub(crate) async fn done(mut self) {
        while let Some(ended) = self.0.join_next().await {
            ended.unwrap();
        }
    }
}
