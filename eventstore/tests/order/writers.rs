//! The writers of the stress run, and what each of them knows of its events in the end.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use annals_eventstore::{Append, Error, EventStore, ExpectedVersion};
use rand::{Rng, SeedableRng, rngs::StdRng};
use tokio_postgres::{Client, GenericClient};
use uuid::Uuid;

use crate::support::{TestDatabase, direct, event, stream};

/// The name by which the killer finds writers.
pub(crate) const WRITER: &str = "annals-writer";
/// Streams that all writers share. Each has one of its own as well.
const SHARED_STREAMS: usize = 12;

/// What is known of events when all is done.
#[derive(Debug, Default)]
pub(crate) struct Known {
    /// The commit was acknowledged.
    pub(crate) acknowledged: Vec<Uuid>,
    /// The transaction or the savepoint was rolled back, by the writer or with its backend.
    pub(crate) rolled_back: Vec<Uuid>,
    /// The connection was lost while the commit was under way.
    pub(crate) unknown: Vec<Uuid>,
}

impl Known {
    pub(crate) fn add(&mut self, other: Self) {
        self.acknowledged.extend(other.acknowledged);
        self.rolled_back.extend(other.rolled_back);
        self.unknown.extend(other.unknown);
    }
}

async fn pause(random: &mut StdRng, up_to_millis: u64) {
    let micros = random.random_range(0..=up_to_millis * 1000);
    // Every second one is none: steps that follow on each other at once.
    if random.random() {
        tokio::time::sleep(Duration::from_micros(micros)).await;
    }
}

/// How a transaction ended.
enum End {
    Committed,
    RolledBack,
    /// Its backend is gone; true if the commit had been sent.
    Lost(bool),
}

/// A writer past the store: explicit transactions, with pauses between all steps.
pub(crate) struct Writer {
    pub(crate) number: usize,
    pub(crate) transactions: usize,
    pub(crate) seed: u64,
    /// Its clients connect anew to here.
    pub(crate) database: Arc<TestDatabase>,
    /// How many transactions are done, of all writers.
    pub(crate) done: Arc<AtomicUsize>,
}

impl Writer {
    pub(crate) async fn run(self) -> Known {
        let mut random = StdRng::seed_from_u64(self.seed.wrapping_add(self.number as u64));
        let mut known = Known::default();
        let mut client = self.database.client_as(WRITER).await;
        for _ in 0..self.transactions {
            let mut events = Vec::new();
            match self.transaction(&client, &mut random, &mut events, &mut known).await {
                End::Committed => known.acknowledged.append(&mut events),
                End::Lost(true) => known.unknown.append(&mut events),
                End::RolledBack | End::Lost(false) => known.rolled_back.append(&mut events),
            }
            if client.is_closed() || client.batch_execute("rollback").await.is_err() {
                client = self.database.client_as(WRITER).await;
            }
            self.done.fetch_add(1, Ordering::Relaxed);
        }
        known
    }

    async fn transaction(
        &self,
        client: &Client,
        random: &mut StdRng,
        events: &mut Vec<Uuid>,
        known: &mut Known,
    ) -> End {
        pause(random, 5).await;
        if let Err(error) = self.appends(client, random, events, known).await {
            return lost_or_rolled_back(&error, false);
        }
        pause(random, 20).await;
        let rolls_back = random.random_bool(0.15);
        let sql = if rolls_back { "rollback" } else { "commit" };
        match client.batch_execute(sql).await {
            Ok(()) if rolls_back => End::RolledBack,
            Ok(()) => End::Committed,
            Err(error) => lost_or_rolled_back(&error, !rolls_back),
        }
    }

    /// Begins a transaction and appends in it, once or more, at times in a savepoint.
    async fn appends(
        &self,
        client: &Client,
        random: &mut StdRng,
        events: &mut Vec<Uuid>,
        known: &mut Known,
    ) -> Result<(), tokio_postgres::Error> {
        client.batch_execute("begin").await?;
        pause(random, 3).await;
        let mut shared = random.random_range(0..SHARED_STREAMS);
        for _ in 0..random.random_range(1..=3) {
            let key = if random.random_bool(0.4) && shared < SHARED_STREAMS {
                // In rising order, so that few transactions deadlock.
                shared += 1;
                format!("shared {:02}", shared - 1)
            } else {
                format!("own {}", self.number)
            };
            let ids = direct::ids(random.random_range(1..=4));
            match random.random_range(0..6) {
                0 => {
                    client.batch_execute("savepoint s").await?;
                    known.rolled_back.extend(&ids);
                    append(client, &key, &ids, random).await?;
                    client.batch_execute("rollback to savepoint s").await?;
                }
                1 => {
                    client.batch_execute("savepoint s").await?;
                    events.extend(&ids);
                    append(client, &key, &ids, random).await?;
                    client.batch_execute("release savepoint s").await?;
                }
                _ => {
                    events.extend(&ids);
                    append(client, &key, &ids, random).await?;
                }
            }
            pause(random, 6).await;
        }
        Ok(())
    }
}

async fn append(
    client: &impl GenericClient,
    key: &str,
    ids: &[Uuid],
    random: &mut StdRng,
) -> Result<(), tokio_postgres::Error> {
    direct::append(client, key, ids).await?;
    pause(random, 4).await;
    Ok(())
}

/// An error of the database's own, such as a deadlock, rolls the transaction back.
fn lost_or_rolled_back(error: &tokio_postgres::Error, committing: bool) -> End {
    use tokio_postgres::error::Severity;
    let fatal = |severity| matches!(severity, Some(Severity::Fatal | Severity::Panic));
    match error.as_db_error() {
        Some(error) if !fatal(error.parsed_severity()) => End::RolledBack,
        _ => End::Lost(committing),
    }
}

/// A writer through the store.
pub(crate) async fn through_store(
    store: EventStore,
    number: usize,
    appends: usize,
    seed: u64,
) -> Known {
    let mut random = StdRng::seed_from_u64(seed.wrapping_add(1000 + number as u64));
    let mut known = Known::default();
    for _ in 0..appends {
        pause(&mut random, 8).await;
        let new = (0..random.random_range(1..=5)).map(|_| event(0)).collect::<Vec<_>>();
        let ids = new.iter().map(|event| event.id).collect::<Vec<_>>();
        let shared = random.random_range(0..SHARED_STREAMS);
        let append =
            Append::to(stream(format!("shared {shared:02}")), ExpectedVersion::Any, new.clone());
        match store.append(append).await {
            Ok(_) => known.acknowledged.extend(ids),
            Err(Error::Indeterminate { .. }) => known.unknown.extend(ids),
            Err(error) => {
                assert!(error.is_retryable(), "{error:?}");
                known.rolled_back.extend(ids);
            }
        }
    }
    known
}
