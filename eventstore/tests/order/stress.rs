//! The stress run: writers, a killer, transactions that have nothing to do with it, and a reader.

use std::{
    collections::{HashMap, HashSet},
    fmt,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use annals_eventstore::{EventStore, Position, Recorded};
use futures::future::join_all;
use rand::{Rng, SeedableRng, rngs::StdRng};
use tokio_postgres::Client;

use crate::{
    support::{TestDatabase, assert_sound, direct, eventually, kill, log},
    writers::{Known, WRITER, Writer, through_store},
};

/// Ten writers past the store, and some through it.
const WRITERS: usize = 10;
const STORE_WRITERS: usize = 4;
const TRANSACTIONS: usize = 160;
const STORE_APPENDS: usize = 500;

/// How far the reader reads.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Reading {
    /// As the store says.
    UpToSafePosition,
    /// To the highest position that can be seen.
    UpToNewestPosition,
}

/// What came of a run.
#[derive(Debug)]
pub(crate) struct Report {
    seed: u64,
    reading: Reading,
    acknowledged: usize,
    rolled_back: usize,
    unknown: usize,
    killed: usize,
    polls: usize,
    pages: usize,
    seen: usize,
    holes: i64,
    /// Events in the log that the reader never saw.
    pub(crate) lost: usize,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "seed {}, reading {:?}: {} events acknowledged, {} rolled back, {} unknown, \
             {} backends killed; {} polls, {} pages, {} events seen, {} positions without event; \
             {} events lost",
            self.seed,
            self.reading,
            self.acknowledged,
            self.rolled_back,
            self.unknown,
            self.killed,
            self.polls,
            self.pages,
            self.seen,
            self.holes,
            self.lost
        )
    }
}

impl Report {
    /// Checks that there was what the run is about.
    pub(crate) fn assert_busy(&self) {
        assert!(self.acknowledged > 3000, "{self}");
        assert!(self.rolled_back > 300, "{self}");
        assert!(self.killed > 5, "{self}");
        assert!(self.holes > 300, "{self}");
        assert!(self.pages > 300, "{self}");
    }
}

/// How the stores get to the database.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Way {
    Direct,
    ThroughPooler,
}

/// Runs writers against a reader and checks all but whether the reader lost events.
pub(crate) async fn run(seed: u64, reading: Reading, way: Way) -> Report {
    println!("seed {seed}");
    let database = Arc::new(TestDatabase::create().await);
    let elsewhere = TestDatabase::create().await;
    let pooler = if way == Way::ThroughPooler { Some(database.pooler().await) } else { None };
    let connect = async |name: &str| {
        let connecting = match &pooler {
            None => EventStore::options().connect(&database.url_as(name)).await,
            Some(pooler) => {
                EventStore::options().transaction_pooler().connect(&pooler.url_as(name)).await
            }
        };
        connecting.unwrap()
    };
    let store = connect("annals-reader").await;
    // Open write transactions from before the first event until after the last.
    let unrelated = [open_transaction(&database).await, open_transaction(&elsewhere).await];

    let all_written = Arc::new(AtomicBool::new(false));
    let reader =
        tokio::spawn(read(database.clone(), store.clone(), reading, seed, all_written.clone()));
    let done = Arc::new(AtomicUsize::new(0));
    // The store's own backends are killed too, but not while it connects for the first time.
    let appending = connect(WRITER).await;
    let killer = tokio::spawn(kill_writers(database.clone(), seed, all_written.clone()));
    let writers = (0..WRITERS).map(|number| {
        let (database, done) = (database.clone(), done.clone());
        let writer = Writer { number, transactions: TRANSACTIONS, seed, database, done };
        tokio::spawn(writer.run())
    });
    let store_writers = (0..STORE_WRITERS)
        .map(|number| tokio::spawn(through_store(appending.clone(), number, STORE_APPENDS, seed)));
    let mut known = Known::default();
    for writer in join_all(writers.chain(store_writers)).await {
        known.add(writer.unwrap());
    }
    assert_eq!(done.load(Ordering::Relaxed), WRITERS * TRANSACTIONS);
    all_written.store(true, Ordering::Relaxed);
    let killed = killer.await.unwrap();
    let read = reader.await.unwrap();
    let log = log(&connect("annals-afterwards").await).await;
    for transaction in unrelated {
        transaction.batch_execute("commit").await.unwrap();
    }

    assert_sound(&log);
    read.assert_in_order();
    let last = assert_settled(&database).await;
    let lost = compare(&known, &read.events, &log);
    Report {
        seed,
        reading,
        acknowledged: known.acknowledged.len(),
        rolled_back: known.rolled_back.len(),
        unknown: known.unknown.len(),
        killed,
        polls: read.polls,
        pages: read.pages,
        seen: read.events.len(),
        holes: last - log.len() as i64,
        lost,
    }
}

async fn open_transaction(database: &TestDatabase) -> Client {
    let client = database.client().await;
    let sql = "create table unrelated (id integer); begin; insert into unrelated values (1)";
    client.batch_execute(sql).await.unwrap();
    client
}

/// Kills a writer's backend now and then, at whatever step it is.
async fn kill_writers(database: Arc<TestDatabase>, seed: u64, stop: Arc<AtomicBool>) -> usize {
    let mut random = StdRng::seed_from_u64(seed.wrapping_sub(1));
    let client = database.client_as("killer").await;
    let sql = "select count(pg_terminate_backend(pid)) from (
        select pid from pg_stat_activity where application_name = $1 and datname = current_database()
        order by random() limit 1) one";
    let mut killed = 0;
    while !stop.load(Ordering::Relaxed) {
        tokio::time::sleep(Duration::from_millis(random.random_range(5..80))).await;
        killed += client.query_one(sql, &[&WRITER]).await.unwrap().get::<_, i64>(0) as usize;
    }
    killed + kill(&client, WRITER).await
}

/// What the reader saw, in its order.
struct Read {
    events: Vec<Recorded>,
    polls: usize,
    pages: usize,
}

impl Read {
    fn assert_in_order(&self) {
        for pair in self.events.windows(2) {
            assert!(pair[0].position < pair[1].position, "repeated or reordered: {pair:?}");
        }
    }
}

/// Reads as workers do: polls without pause, page after page from the checkpoint.
async fn read(
    database: Arc<TestDatabase>,
    store: EventStore,
    reading: Reading,
    seed: u64,
    all_written: Arc<AtomicBool>,
) -> Read {
    let mut random = StdRng::seed_from_u64(seed);
    let client = database.client_as("annals-reader").await;
    let newest = "select coalesce(max(position), 0) from annals.events";
    let mut read = Read { events: Vec::new(), polls: 0, pages: 0 };
    let mut checkpoint = Position::START;
    loop {
        // Asked before the position: what was written by then is below it.
        let last_poll = all_written.load(Ordering::Relaxed);
        read.polls += 1;
        let up_to = match reading {
            Reading::UpToSafePosition => match store.safe_position().await {
                Ok(position) => position,
                Err(error) => {
                    assert_interrupted(&error);
                    continue;
                }
            },
            Reading::UpToNewestPosition => {
                Position::new(client.query_one(newest, &[]).await.unwrap().get(0))
            }
        };
        while up_to > checkpoint {
            let limit = random.random_range(1..40);
            let page = match store.read_page(None, checkpoint, up_to, limit).await {
                Ok(page) => page,
                Err(error) => {
                    assert_interrupted(&error);
                    continue;
                }
            };
            read.pages += 1;
            checkpoint = match page.last() {
                Some(last) if page.len() == limit => last.position,
                _ => up_to,
            };
            read.events.extend(page);
        }
        if last_poll {
            return read;
        }
    }
}

/// Behind a pooler a reader may get the session of a writer that is just being killed.
fn assert_interrupted(error: &annals_eventstore::Error) {
    assert!(error.is_retryable(), "{error:?}");
}

/// Checks that nothing is left of the writers that is still in flight; returns the last position.
async fn assert_settled(database: &TestDatabase) -> i64 {
    let client = database.client().await;
    eventually("the registry is empty", async || direct::registered(&client).await == 0).await;
    let last = direct::last_position(&client).await;
    assert_eq!(direct::safe_position(&client).await, last);
    let sql = "select count(*) from annals.streams s where version <> (
        select count(*) from annals.events e where e.stream_id = s.id)";
    let wrong: i64 = client.query_one(sql, &[]).await.unwrap().get(0);
    assert_eq!(wrong, 0, "streams whose version is not the number of their events");
    last
}

/// Checks the log against what writers know, and what was seen against the log. Returns how many
/// events were not seen.
fn compare(known: &Known, seen: &[Recorded], log: &[Recorded]) -> usize {
    let by_id: HashMap<_, _> = log.iter().map(|event| (event.id, event)).collect();
    assert_eq!(by_id.len(), log.len(), "an event is in the log twice");
    for id in &known.acknowledged {
        assert!(by_id.contains_key(id), "the acknowledged event {id} is not in the log");
    }
    for id in &known.rolled_back {
        assert!(!by_id.contains_key(id), "the rolled-back event {id} is in the log");
    }
    let written = known.acknowledged.iter().chain(&known.unknown).collect::<HashSet<_>>();
    for event in log {
        assert!(written.contains(&event.id), "nobody wrote {event:?}");
    }
    let mut not_seen = log.len();
    for event in seen {
        assert_eq!(by_id.get(&event.id), Some(&event), "what was seen is not what is recorded");
        not_seen -= 1;
    }
    not_seen
}
