//! The stress run: writers, a killer, transactions that have nothing to do with it, and readers. What
//! each of them does and sees goes into files; the checker of histories judges these.

use std::{
    fmt,
    fs::File,
    io::{BufReader, BufWriter},
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use annals_eventstore::{
    EventStore, Position,
    conformance::history::{self, Recorder, Verdict, check},
};
use futures::future::join_all;
use rand::{Rng, SeedableRng, rngs::StdRng};
use tokio_postgres::Client;

use crate::{
    readers::{Kind, Reader, Reading},
    support::{TestDatabase, direct, eventually, kill, log},
    writers::{Part, Until, WRITER, Writer, through_store},
};

/// Ten writers past the store, and some through it.
const WRITERS: usize = 10;
const STORE_WRITERS: usize = 4;

/// What a run is to be.
#[derive(Clone, Debug)]
pub(crate) struct Run {
    /// What all random choices follow from, but not how tasks and processes alternate.
    pub(crate) seed: u64,
    pub(crate) reading: Reading,
    /// For so long; if none, until a fixed number of transactions is done.
    pub(crate) length: Option<Duration>,
    /// Where the history goes.
    pub(crate) folder: PathBuf,
}

/// What came of a run. Its last line is the verdict's.
#[derive(Debug)]
pub(crate) struct Report {
    run: Run,
    killed: usize,
    pages: usize,
    holes: i64,
    last: Position,
    pub(crate) verdict: Verdict,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "seed {}, reading {:?}: {} backends killed, {} pages read, {} positions without event",
            self.run.seed, self.run.reading, self.killed, self.pages, self.holes
        )?;
        write!(f, "{}", self.verdict)
    }
}

impl Report {
    /// Checks that there was what the run is about.
    pub(crate) fn assert_busy(&self) {
        assert!(self.verdict.acknowledged > 2000, "{self}");
        assert!(self.verdict.refused > 300, "{self}");
        assert!(self.killed > 5, "{self}");
        assert!(self.holes > 300, "{self}");
        assert!(self.pages > 600, "{self}");
        assert!(self.verdict.restarts > 20, "{self}");
        self.assert_complete();
    }

    /// Checks that readers came to the last event.
    pub(crate) fn assert_complete(&self) {
        // One follows streams and has no place in the log.
        assert_eq!(self.verdict.reached.len(), Kind::ALL.len() - 1, "{self}");
        assert!(self.verdict.reached.values().all(|reached| *reached >= self.last), "{self}");
    }
}

/// Runs writers against readers and judges the history.
pub(crate) async fn run(run: Run) -> Report {
    eprintln!("seed {}, history in {}", run.seed, run.folder.display());
    let start = Instant::now();
    let part = |name: String| -> Part {
        let file = File::create(run.folder.join(format!("{name}.jsonl"))).unwrap();
        Recorder::new(name, start, BufWriter::new(file))
    };
    let (transactions, appends) = match run.length {
        None => (Until::Count(160), Until::Count(500)),
        Some(length) => (Until::Time(start + length), Until::Time(start + length)),
    };
    let seed = run.seed;
    let database = Arc::new(TestDatabase::create().await);
    let elsewhere = TestDatabase::create().await;
    let store = EventStore::connect(&database.url_as("annals-reader")).await.unwrap();
    // Open write transactions from before the first event until after the last.
    let unrelated = [open_transaction(&database).await, open_transaction(&elsewhere).await];

    let all_written = Arc::new(AtomicBool::new(false));
    let readers = Kind::ALL.map(|kind| {
        let reader = Reader {
            kind,
            reading: run.reading,
            seed,
            database: database.clone(),
            store: store.clone(),
            all_written: all_written.clone(),
            part: part(format!("reader {kind:?}")),
        };
        tokio::spawn(reader.run())
    });
    // The store's own backends are killed too, but not while it connects for the first time.
    let appending = EventStore::connect(&database.url_as(WRITER)).await.unwrap();
    let killer = tokio::spawn(kill_writers(database.clone(), seed, all_written.clone()));
    let done = Arc::new(AtomicUsize::new(0));
    let writers = (0..WRITERS).map(|number| {
        let writer = Writer {
            number,
            until: transactions,
            seed,
            database: database.clone(),
            done: done.clone(),
            part: part(format!("writer {number}")),
        };
        tokio::spawn(writer.run())
    });
    let store_writers = (0..STORE_WRITERS).map(|number| {
        let part = part(format!("writer through the store {number}"));
        tokio::spawn(through_store(appending.clone(), number, appends, seed, part))
    });
    for writer in join_all(writers.chain(store_writers)).await {
        writer.unwrap().finish().unwrap();
    }
    all_written.store(true, Ordering::Relaxed);
    let killed = killer.await.unwrap();
    // What was in flight in a backend that was killed is settled before readers are done.
    let mut pages = 0;
    for reader in join_all(readers).await {
        let (part, read) = reader.unwrap();
        part.finish().unwrap();
        pages += read;
    }
    let log = log(&store).await;
    let mut whole = part("log".to_owned());
    whole.log(&log);
    whole.finish().unwrap();
    for transaction in unrelated {
        transaction.batch_execute("commit").await.unwrap();
    }
    let holes = assert_settled(&database).await - log.len() as i64;
    let verdict = judge(&run.folder);
    let last = log.last().map_or(Position::START, |event| event.position);
    Report { run, killed, pages, holes, last, verdict }
}

/// Judges the history in a folder.
pub(crate) fn judge(folder: &Path) -> Verdict {
    let mut entries = Vec::new();
    for file in std::fs::read_dir(folder).unwrap() {
        let file = File::open(file.unwrap().path()).unwrap();
        entries.extend(history::read(BufReader::new(file)).unwrap());
    }
    check(&entries)
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
