//! Leaders in processes of their own, which are stopped and killed in the middle of what they write.

use std::{
    cell::Cell,
    process::{Child, Command, Stdio},
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

use annals_eventstore::{Error, EventStore, leader::Election, postgres::LeaseOptions};
use rand::{Rng, SeedableRng, rngs::StdRng};
use tokio_postgres::Client;

use crate::{
    support::{TestDatabase, database::value, eventually, in_time},
    writing::{Fence, Step, TABLE, interleaved, rows_of, write},
};

/// Where this is set, this program is a candidate in the store with that URL.
const URL: &str = "ANNALS_TEST_LEADER_URL";
/// What it calls itself.
const NAME: &str = "ANNALS_TEST_LEADER_NAME";
/// How long its lease lasts, in milliseconds.
const LEASE: &str = "ANNALS_TEST_LEADER_LEASE";
/// Where it pauses itself in its fourth write, if it does.
const PAUSES: &str = "ANNALS_TEST_LEADER_PAUSES";
/// Set if it writes without a guard.
const UNGUARDED: &str = "ANNALS_TEST_LEADER_UNGUARDED";

/// Not a test: what the tests below start in a process of its own. It leads when it can, and writes as fast as it can
/// until it is refused: it does not listen to what it could know of its end.
#[tokio::test(flavor = "multi_thread")]
async fn candidate_process() {
    let Ok(url) = std::env::var(URL) else { return };
    let name = std::env::var(NAME).unwrap();
    let lease = Duration::from_millis(std::env::var(LEASE).unwrap().parse().unwrap());
    let pauses = match std::env::var(PAUSES).as_deref() {
        Ok("BeforeGuard") => Some(Step::BeforeGuard),
        Ok("BehindGuard") => Some(Step::BehindGuard),
        Ok("Written") => Some(Step::Written),
        _ => None,
    };
    let fence = if std::env::var(UNGUARDED).is_ok() { Fence::Missing } else { Fence::Guarded };
    let store = EventStore::connect(&url).await.unwrap();
    let election = Election::new(&store, "test").unwrap().lease(LeaseOptions::new(lease));
    let writes = Cell::new(0);
    let at = |step| {
        if step == Step::BeforeGuard {
            writes.set(writes.get() + 1);
        }
        if writes.get() == 4 && pauses == Some(step) {
            signal("-STOP", std::process::id());
            // The signal may reach this thread a moment later.
            std::thread::sleep(Duration::from_millis(100));
        }
    };
    loop {
        let leadership = election.campaign().await.unwrap();
        loop {
            match write(&store, &leadership, &name, fence, &at).await {
                Ok(()) => tokio::time::sleep(Duration::from_millis(1)).await,
                Err(Error::Fenced { .. }) => break,
                // Its transaction was ended while it was paused, say.
                Err(_) if fence == Fence::Missing && leadership.is_lost() => break,
                Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
            }
        }
    }
}

fn signal(signal: &str, process: u32) {
    let status = Command::new("kill").args([signal, &process.to_string()]).status().unwrap();
    assert!(status.success(), "kill {signal} {process}");
}

pub(crate) struct Candidate {
    child: Child,
    name: String,
}

impl Candidate {
    pub(crate) fn start(database: &TestDatabase, lease: Duration) -> Self {
        Self::start_with(database, lease, &[])
    }

    fn start_with(database: &TestDatabase, lease: Duration, more: &[(&str, String)]) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let name = format!("candidate {}", COUNT.fetch_add(1, Ordering::Relaxed));
        let child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "processes::candidate_process", "--nocapture"])
            .env(URL, database.url_as("candidate"))
            .env(NAME, &name)
            .env(LEASE, lease.as_millis().to_string())
            .envs(more.iter().map(|(name, value)| (name, value)))
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        Self { child, name }
    }

    pub(crate) fn kill(&mut self) {
        self.child.kill().unwrap();
    }

    fn pause(&self) {
        signal("-STOP", self.child.id());
    }

    fn wake(&self) {
        signal("-CONT", self.child.id());
    }

    fn is_paused(&self) -> bool {
        let id = self.child.id().to_string();
        let state = Command::new("ps").args(["-o", "state=", "-p", &id]).output().unwrap();
        state.stdout.starts_with(b"T")
    }

    /// The last epoch that it has written in.
    pub(crate) async fn epoch(&self, client: &Client) -> Option<i64> {
        let sql = "select max(epoch) from writes where writer = $1";
        client.query_one(sql, &[&self.name]).await.unwrap().get(0)
    }

    pub(crate) async fn writes(&self, client: &Client) -> i64 {
        eventually("it leads and writes", || async { self.epoch(client).await.is_some() }).await;
        self.epoch(client).await.unwrap()
    }
}

impl Drop for Candidate {
    fn drop(&mut self) {
        // It ends also when it is paused; one that has ended before needs no ending.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A leader stops itself in its fourth write, for longer than its lease lasts. Another takes over; then the first one
/// wakes up. Returns what was written out of turn.
async fn stopped_at(step: Step, fence: Fence) -> i64 {
    let database = TestDatabase::create().await;
    let client = database.client().await;
    client.batch_execute(TABLE).await.unwrap();
    let lease = Duration::from_millis(1500);
    let mut how = vec![(PAUSES, format!("{step:?}"))];
    if fence == Fence::Missing {
        how.push((UNGUARDED, "yes".to_owned()));
    }
    let first = Candidate::start_with(&database, lease, &how);
    eventually("it stops itself", || async { first.is_paused() }).await;
    let epoch = first.writes(&client).await;
    let before = rows_of(&client, epoch).await;
    assert_eq!(before, 3);

    let second = Candidate::start(&database, lease);
    assert!(second.writes(&client).await > epoch);
    first.wake();
    eventually("it wakes up", || async { !first.is_paused() }).await;
    if fence == Fence::Guarded {
        // It has found out once it campaigns again: it leads when the second one is gone.
        drop(second);
        eventually("the first one leads again", || async {
            first.epoch(&client).await > Some(epoch)
        })
        .await;
        assert_eq!(rows_of(&client, epoch).await, before, "{step:?}");
    } else {
        eventually("its write is there", || async { rows_of(&client, epoch).await > before }).await;
    }
    interleaved(&client).await
}

#[tokio::test(flavor = "multi_thread")]
async fn one_that_was_stopped_before_it_asks_is_refused() {
    assert_eq!(in_time(stopped_at(Step::BeforeGuard, Fence::Guarded)).await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn one_that_was_stopped_behind_its_guard_writes_nothing() {
    assert_eq!(in_time(stopped_at(Step::BehindGuard, Fence::Guarded)).await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn one_that_was_stopped_before_its_commit_commits_nothing() {
    assert_eq!(in_time(stopped_at(Step::Written, Fence::Guarded)).await, 0);
}

/// The judge of the tests above and below is worth something.
#[tokio::test(flavor = "multi_thread")]
async fn without_a_guard_a_former_leader_does_write() {
    assert!(in_time(stopped_at(Step::BehindGuard, Fence::Missing)).await > 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_is_stopped_or_killed_when_epochs_never_interleave() {
    in_time(async {
        let database = TestDatabase::create().await;
        let client = database.client().await;
        client.batch_execute(TABLE).await.unwrap();
        let seed = rand::random();
        println!("seed {seed}");
        let mut rng = StdRng::seed_from_u64(seed);
        let lease = Duration::from_millis(1000);
        let start = || Candidate::start(&database, lease);
        let mut candidates: Vec<_> = (0..3).map(|_| start()).collect();
        let highest = "select coalesce(max(epoch), 0) from writes";
        for round in 1..=8 {
            // Somebody leads by now; that one is stopped or killed.
            let mut leader = None;
            let last: i64 = value(&client, highest).await;
            while leader.is_none() {
                tokio::time::sleep(Duration::from_millis(rng.random_range(1..60))).await;
                let now: i64 = value(&client, highest).await;
                for (index, candidate) in candidates.iter().enumerate() {
                    if now > 0 && candidate.epoch(&client).await == Some(now) {
                        leader = Some(index);
                    }
                }
            }
            let Some(index) = leader else { unreachable!() };
            if rng.random_ratio(1, 3) {
                candidates[index].kill();
                candidates[index] = start();
            } else {
                candidates[index].pause();
                // Shorter than its lease, or longer.
                tokio::time::sleep(lease.mul_f64(rng.random_range(0.2..2.5))).await;
                candidates[index].wake();
            }
            assert_eq!(interleaved(&client).await, 0, "seed {seed}, round {round}, from {last}");
        }
        let epochs: i64 = value(&client, "select count(distinct epoch) from writes").await;
        let rows: i64 = value(&client, "select count(*) from writes").await;
        println!("{rows} rows in {epochs} epochs");
        assert!(epochs > 1, "nobody ever took over");
        drop(candidates);
        assert_eq!(interleaved(&client).await, 0, "seed {seed}");
    })
    .await;
}
