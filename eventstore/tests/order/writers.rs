//! The writers of the stress run, and what each of them writes down of its appends.

use std::{
    fs::File,
    io::BufWriter,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use annals_eventstore::{
    Append, Error, EventStore, ExpectedVersion, Position, StreamId, Version,
    conformance::history::{Invoked, Place, Recorder, Written},
};
use rand::{Rng, SeedableRng, rngs::StdRng};
use tokio_postgres::{Client, GenericClient};
use uuid::Uuid;

use crate::support::{TestDatabase, direct, event};

/// The name by which the killer finds writers.
pub(crate) const WRITER: &str = "annals-writer";
/// Streams that all writers share. Each has one of its own as well.
pub(crate) const SHARED_STREAMS: usize = 12;
/// Every second stream is of the second one.
pub(crate) const CATEGORIES: [&str; 2] = ["thing", "other"];

/// The part of the history that one writer or reader writes into a file of its own.
pub(crate) type Part = Recorder<BufWriter<File>>;

/// How long a writer goes on.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Until {
    /// So many transactions or appends are done.
    Count(usize),
    /// It is that late.
    Time(Instant),
}

impl Until {
    fn is_over(self, done: usize) -> bool {
        match self {
            Self::Count(count) => done >= count,
            Self::Time(end) => Instant::now() >= end,
        }
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
    pub(crate) until: Until,
    pub(crate) seed: u64,
    /// Its clients connect anew to here.
    pub(crate) database: Arc<TestDatabase>,
    /// How many transactions are done, of all writers.
    pub(crate) done: Arc<AtomicUsize>,
    pub(crate) part: Part,
}

/// The appends of a transaction that are recorded if it commits, and where.
type Appends = Vec<(Invoked, Vec<Place>)>;

impl Writer {
    pub(crate) async fn run(mut self) -> Part {
        let mut random = StdRng::seed_from_u64(self.seed.wrapping_add(self.number as u64));
        let mut client = self.database.client_as(WRITER).await;
        let mut done = 0;
        while !self.until.is_over(done) {
            let mut appends = Vec::new();
            let end = self.transaction(&client, &mut random, &mut appends).await;
            for (invoked, places) in appends {
                match end {
                    End::Committed => self.part.acknowledged(invoked, places),
                    End::Lost(true) => self.part.indeterminate(invoked),
                    End::RolledBack | End::Lost(false) => self.part.refused(invoked),
                }
            }
            if client.is_closed() || client.batch_execute("rollback").await.is_err() {
                client = self.database.client_as(WRITER).await;
            }
            done += 1;
            self.done.fetch_add(1, Ordering::Relaxed);
        }
        self.part
    }

    async fn transaction(
        &mut self,
        client: &Client,
        random: &mut StdRng,
        appends: &mut Appends,
    ) -> End {
        pause(random, 5).await;
        if let Err(error) = self.appends(client, random, appends).await {
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
        &mut self,
        client: &Client,
        random: &mut StdRng,
        appends: &mut Appends,
    ) -> Result<(), tokio_postgres::Error> {
        client.batch_execute("begin").await?;
        pause(random, 3).await;
        let mut shared = random.random_range(0..SHARED_STREAMS);
        for _ in 0..random.random_range(1..=3) {
            let stream = if random.random_bool(0.4) && shared < SHARED_STREAMS {
                // In rising order, so that few transactions deadlock.
                shared += 1;
                shared_stream(shared - 1)
            } else {
                StreamId::new(CATEGORIES[self.number % 2], format!("own {}", self.number)).unwrap()
            };
            let savepoint = random.random_range(0..6);
            if savepoint < 2 {
                client.batch_execute("savepoint s").await?;
            }
            let ids = direct::ids(random.random_range(1..=4));
            let written = ids.iter().map(|id| Written { id: *id, stream: stream.to_string() });
            let invoked = self.part.invoked_events(written.collect());
            let outcome = append(client, &stream, &ids).await;
            match outcome {
                // Whatever becomes of the transaction.
                Ok(_) if savepoint == 0 => self.part.refused(invoked),
                Ok(places) => appends.push((invoked, places)),
                Err(error) => {
                    self.part.refused(invoked);
                    return Err(error);
                }
            }
            pause(random, 4).await;
            match savepoint {
                0 => client.batch_execute("rollback to savepoint s").await?,
                1 => client.batch_execute("release savepoint s").await?,
                _ => {}
            }
            pause(random, 6).await;
        }
        Ok(())
    }
}

pub(crate) fn shared_stream(number: usize) -> StreamId {
    StreamId::new(CATEGORIES[number % 2], format!("shared {number:02}")).unwrap()
}

/// Appends in the client's transaction; says where the events are if it commits.
async fn append(
    client: &impl GenericClient,
    stream: &StreamId,
    ids: &[Uuid],
) -> Result<Vec<Place>, tokio_postgres::Error> {
    let (category, key) = (stream.category(), stream.key());
    let appended = direct::append_after(client, category, key, ids).await?;
    let place = |index: usize| Place {
        position: Position::new(appended.first_position).plus(index),
        version: Version::new(appended.version_before).plus(index + 1),
    };
    Ok((0..ids.len()).map(place).collect())
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
    until: Until,
    seed: u64,
    mut part: Part,
) -> Part {
    let mut random = StdRng::seed_from_u64(seed.wrapping_add(1000 + number as u64));
    let mut done = 0;
    while !until.is_over(done) {
        pause(&mut random, 8).await;
        let new = (0..random.random_range(1..=5)).map(|_| event(0)).collect::<Vec<_>>();
        let stream = shared_stream(random.random_range(0..SHARED_STREAMS));
        let append = match random.random_range(0..10) {
            // Most of these are refused: others write to the stream as well.
            0 => Append::to(stream, ExpectedVersion::NoStream, new),
            1 => Append::to(stream, ExpectedVersion::Any, new).and(
                StreamId::new("other", format!("beside {number}")).unwrap(),
                ExpectedVersion::Any,
                [event(0)],
            ),
            _ => Append::to(stream, ExpectedVersion::Any, new),
        };
        let invoked = part.invoked(&append);
        let outcome = store.append(append).await;
        part.answered(invoked, &outcome);
        match outcome {
            Ok(_) | Err(Error::Conflict { .. }) => {}
            Err(error) => assert!(error.is_retryable(), "{error:?}"),
        }
        done += 1;
    }
    part
}
