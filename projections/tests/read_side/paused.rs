//! A worker process that is paused past its lease changes nothing when it wakes up.

use std::{
    process::{Child, Command, Stdio},
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use annals_eventstore::EventStore;
use annals_projections::{QueryReadModels, control};
use rand::Rng;

use crate::support::{
    PATIENCE, Running,
    database::{TestDatabase, value},
    eventually, lease,
    ledger::{PAUSE, STALL, Tally, add},
    load::{Load, seeded},
    oracle::assert_exact,
    worker,
};

/// Where this is set, this program is a worker on the store with that URL.
const URL: &str = "ANNALS_TEST_WORKER_URL";

/// How long its lease lasts, in milliseconds: so long does a paused worker keep its successor waiting. Long
/// enough that on a busy machine workers do not take it from each other while they work.
const LEASE: &str = "ANNALS_TEST_WORKER_LEASE";

static IS_WORKER: AtomicBool = AtomicBool::new(false);

/// Not a test: what the tests below start in a process of its own.
#[tokio::test(flavor = "multi_thread")]
async fn worker_process() {
    let Ok(url) = std::env::var(URL) else { return };
    IS_WORKER.store(true, Ordering::Relaxed);
    let store = EventStore::connect(&url).await.unwrap();
    let milliseconds = std::env::var(LEASE).unwrap().parse().unwrap();
    worker::<Tally>(&store).batch_size(3).lease(lease(milliseconds)).run().await.unwrap();
}

/// Pauses this process, if it is such a worker, in the middle of a transaction.
pub(crate) fn pause_if_worker() {
    if IS_WORKER.load(Ordering::Relaxed) {
        signal("-STOP", std::process::id());
    }
}

static HAS_STALLED: AtomicBool = AtomicBool::new(false);

/// Holds its thread up, for longer than the database waits for the transactions of a worker with the shortest patience.
pub(crate) fn stall_once() {
    if !HAS_STALLED.swap(true, Ordering::Relaxed) {
        std::thread::sleep(Duration::from_millis(1500));
    }
}

fn signal(signal: &str, process: u32) {
    let status = Command::new("kill").args([signal, &process.to_string()]).status().unwrap();
    assert!(status.success(), "kill {signal} {process}");
}

pub(crate) struct WorkerProcess(Child);

impl WorkerProcess {
    pub(crate) fn start(database: &TestDatabase, lease: u64) -> Self {
        let child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "paused::worker_process", "--nocapture"])
            .env(URL, database.url_as("worker process"))
            .env(LEASE, lease.to_string())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        Self(child)
    }

    fn pause(&self) {
        signal("-STOP", self.0.id());
    }

    fn wake(&self) {
        signal("-CONT", self.0.id());
    }

    fn is_paused(&self) -> bool {
        let id = self.0.id().to_string();
        let state = Command::new("ps").args(["-o", "state=", "-p", &id]).output().unwrap();
        state.stdout.starts_with(b"T")
    }

    fn is_alive(&mut self) -> bool {
        self.0.try_wait().unwrap().is_none()
    }
}

impl Drop for WorkerProcess {
    fn drop(&mut self) {
        // It ends also when it is paused; one that has ended before needs no ending.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

async fn caught_up(store: &EventStore) {
    let end = store.safe_position().await.unwrap();
    store.query::<Tally>().wait_for(end, PATIENCE / 2).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn at_random_moments_under_load() {
    let database = TestDatabase::create().await;
    let (store, client) = (database.store().await, database.client().await);
    let (seed, mut rng) = seeded();
    let milliseconds = 2000;
    let mut process = WorkerProcess::start(&database, milliseconds);
    add(&store, "a", 1).await;
    caught_up(&store).await;
    for round in 0..5 {
        let load = Load::start(&store, seed + round, 2, 60);
        tokio::time::sleep(Duration::from_millis(rng.random_range(0..80))).await;
        process.pause();
        let second = worker::<Tally>(&store).batch_size(2).lease(lease(milliseconds));
        let mut second = Running::start(second);
        second.caught_up::<Tally>(&store).await;
        process.wake();
        load.done().await;
        second.caught_up::<Tally>(&store).await;
        tokio::time::sleep(Duration::from_millis(rng.random_range(0..80))).await;
        assert_exact::<Tally>(&store, &client).await;
        second.stop().await;
        // The process gets its lease again.
        add(&store, "a", 1).await;
        caught_up(&store).await;
        assert!(process.is_alive());
    }
    assert_exact::<Tally>(&store, &client).await;
}

// On one thread: what the database says of the end of the transaction is heard when the next statement is sent.
#[tokio::test]
async fn a_stall_past_the_end_of_its_transaction_is_no_fault_of_an_event() {
    let database = TestDatabase::create().await;
    let (store, client) = (database.store().await, database.client().await);
    let mut running = Running::start(worker::<Tally>(&store).lease(lease(1000)));
    add(&store, "a", 1).await;
    running.caught_up::<Tally>(&store).await;
    add(&store, "a", STALL).await;
    running.caught_up::<Tally>(&store).await;
    assert!(HAS_STALLED.load(Ordering::Relaxed));
    assert_eq!(control::parked(&store, None).await.unwrap(), []);
    assert_exact::<Tally>(&store, &client).await;
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn in_the_middle_of_a_transaction() {
    let database = TestDatabase::create().await;
    let (store, client) = (database.store().await, database.client().await);
    // Its transaction is ended after as long.
    let milliseconds = 6000;
    let mut process = WorkerProcess::start(&database, milliseconds);
    add(&store, "a", 1).await;
    caught_up(&store).await;
    for _ in 0..2 {
        let epoch: i64 = value(&client, "select epoch from annals.leases").await;
        add(&store, "a", PAUSE).await;
        eventually("the worker pauses itself", || async { process.is_paused() }).await;
        // The server may still be at the last statement.
        let open = "select count(*) from pg_stat_activity
                    where application_name = 'worker process' and state = 'idle in transaction'
                      and datname = current_database()";
        eventually("it is in the middle of a transaction", || async {
            value::<i64>(&client, open).await == 1
        })
        .await;

        // Its checkpoint is locked; its successor comes to work all the same.
        let mut second = Running::start(worker::<Tally>(&store).lease(lease(milliseconds)));
        add(&store, "b", 1).await;
        second.caught_up::<Tally>(&store).await;
        assert_exact::<Tally>(&store, &client).await;
        let after: i64 = value(&client, "select epoch from annals.leases").await;
        assert!(after > epoch);

        process.wake();
        eventually("it wakes up", || async { !process.is_paused() }).await;
        add(&store, "b", 1).await;
        second.caught_up::<Tally>(&store).await;
        tokio::time::sleep(Duration::from_millis(200)).await;
        assert_exact::<Tally>(&store, &client).await;
        second.stop().await;
        add(&store, "a", 1).await;
        caught_up(&store).await;
        assert!(process.is_alive());
        assert_exact::<Tally>(&store, &client).await;
    }
}
