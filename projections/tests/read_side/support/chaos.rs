//! The chaos run: worker processes that are killed and paused at random, under load and through rebuilds. At
//! the end every row, and every version of every row, is what a fold of the log makes of it.

use std::{
    process::{Child, Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use annals_eventstore::EventStore;
use annals_projections::{QueryReadModels, ReadModel, Rebuild, control};
use rand::{Rng, SeedableRng, rngs::StdRng};
use tokio::task::JoinSet;

use super::{
    PATIENCE,
    account::{Balance, move_some},
    database::{TestDatabase, value},
    eventually, lease,
    ledger::Tally,
    load::append_some,
    oracle::assert_exact,
    worker,
};

/// Where this is set, this program is a worker on the store with that URL.
const URL: &str = "ANNALS_CHAOS_WORKER_URL";
/// Where this is set, Kafka feeds the worker: the brokers, a space, and the context.
#[cfg(feature = "kafka")]
pub(crate) const TOPICS: &str = "ANNALS_CHAOS_WORKER_TOPICS";
const WORKERS: usize = 4;

pub(crate) struct Run<'a> {
    pub(crate) seed: u64,
    pub(crate) length: Duration,
    /// How often each read model is rebuilt.
    pub(crate) rebuilds: u32,
    /// Starts this program so that it calls [`work`].
    pub(crate) worker: &'a dyn Fn() -> Command,
}

/// Works, if this process is a worker; then true once it ends.
pub(crate) async fn work() -> bool {
    let Ok(url) = std::env::var(URL) else { return false };
    let store = EventStore::connect(&url).await.unwrap();
    let worker = worker::<Tally>(&store).projection::<Balance>().lease(lease(1500));
    #[cfg(feature = "kafka")]
    let worker = match std::env::var(TOPICS) {
        Ok(topics) => {
            let (brokers, context) = topics.split_once(' ').unwrap();
            worker.kafka(annals_projections::kafka::Source::new(brokers, context).unwrap())
        }
        Err(_) => worker,
    };
    worker.run().await.unwrap();
    true
}

struct Worker {
    process: Child,
    paused_until: Option<Instant>,
}

impl Worker {
    fn start(run: &Run<'_>, database: &TestDatabase) -> Self {
        let mut command = (run.worker)();
        command.env(URL, database.url_as("chaos worker")).stdout(Stdio::null());
        Self { process: command.spawn().unwrap(), paused_until: None }
    }

    fn signal(&self, signal: &str) {
        let id = self.process.id().to_string();
        assert!(Command::new("kill").args([signal, &id]).status().unwrap().success());
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// What happened in a run.
#[derive(Debug, Default)]
struct Counts {
    kills: u32,
    pauses: u32,
    ended: u32,
}

/// Returns the verdict; panics if anything is not exact.
pub(crate) async fn run(run: Run<'_>) -> String {
    run_on(&TestDatabase::create().await, run).await
}

/// The same, on a database that is there.
pub(crate) async fn run_on(database: &TestDatabase, run: Run<'_>) -> String {
    println!("chaos: seed {}", run.seed);
    let mut rng = StdRng::seed_from_u64(run.seed);
    let (store, client) = (database.store().await, database.client().await);
    let (done, appends) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let mut load = JoinSet::new();
    for writer in 0..4 {
        let (store, done, appends) = (store.clone(), done.clone(), appends.clone());
        let mut rng = StdRng::seed_from_u64(run.seed.wrapping_add(writer));
        load.spawn(async move {
            while !done.load(Ordering::Relaxed) {
                match writer % 2 {
                    0 => append_some(&store, &mut rng).await,
                    _ => move_some(&store, &mut rng).await,
                }
                appends.fetch_add(1, Ordering::Relaxed);
                tokio::time::sleep(Duration::from_millis(rng.random_range(0..12))).await;
            }
        });
    }
    let rebuilding = {
        let (store, rebuilds, every) = (store.clone(), run.rebuilds, run.length / 4);
        tokio::spawn(async move {
            for _ in 0..rebuilds {
                tokio::time::sleep(every).await;
                rebuild::<Balance>(&store).await;
                rebuild::<Tally>(&store).await;
            }
        })
    };
    let mut workers: Vec<_> = (0..WORKERS).map(|_| Worker::start(&run, database)).collect();
    let (started, mut counts) = (Instant::now(), Counts::default());
    while started.elapsed() < run.length || !rebuilding.is_finished() {
        tokio::time::sleep(Duration::from_millis(rng.random_range(20..600))).await;
        let worker = &mut workers[rng.random_range(0..WORKERS)];
        match (rng.random_range(0..3), worker.paused_until) {
            (0, _) => {
                counts.kills += 1;
                *worker = Worker::start(&run, database);
            }
            (1, None) => {
                counts.pauses += 1;
                worker.signal("-STOP");
                let pause = Duration::from_millis(rng.random_range(10..4000));
                worker.paused_until = Some(Instant::now() + pause);
            }
            _ => {}
        }
        for worker in &mut workers {
            if worker.paused_until.is_some_and(|until| until < Instant::now()) {
                worker.signal("-CONT");
                worker.paused_until = None;
            }
            if worker.process.try_wait().unwrap().is_some() {
                counts.ended += 1;
                *worker = Worker::start(&run, database);
            }
        }
    }
    done.store(true, Ordering::Relaxed);
    while let Some(writer) = load.join_next().await {
        writer.unwrap();
    }
    rebuilding.await.unwrap();
    for worker in workers.iter().filter(|worker| worker.paused_until.is_some()) {
        worker.signal("-CONT");
    }
    let end = store.safe_position().await.unwrap();
    store.query::<Tally>().wait_for(end, PATIENCE / 2).await.unwrap();
    store.query::<Balance>().wait_for(end, PATIENCE / 2).await.unwrap();
    eventually("no lag", || async {
        let status = control::status(&store).await.unwrap();
        status.iter().all(|projection| projection.behind == 0)
    })
    .await;
    assert_eq!(counts.ended, 0, "workers ended by themselves");
    assert_eq!(control::parked(&store, None).await.unwrap(), []);
    assert_exact::<Tally>(&store, &client).await;
    assert_exact::<Balance>(&store, &client).await;
    let taken: i64 = value(&client, "select sum(epoch)::bigint from annals.leases").await;
    drop(workers);
    let Counts { kills, pauses, .. } = counts;
    let appends = appends.load(Ordering::Relaxed);
    format!(
        "chaos: EXACT after {appends} appends up to position {end}, {kills} kills, {pauses} pauses, \
         {taken} leases taken, {} rebuilds; seed {}",
        2 * run.rebuilds,
        run.seed
    )
}

/// Rebuilds, while workers may do the same because of nobody else.
async fn rebuild<R: ReadModel>(store: &EventStore) {
    Rebuild::<R>::of(store).run().await.unwrap();
}
