//! How long nobody leads when a leader is gone: `ANNALS_TAKEOVERS=20 cargo test -p annals-eventstore --test leader
//! takeover -- --nocapture` measures it.

use std::time::{Duration, Instant};

use annals_eventstore::{EventStore, leader::Election, postgres::LeaseOptions};
use rand::Rng;

use crate::{
    processes::Candidate,
    support::{TestDatabase, in_time},
    writing::TABLE,
};

fn rounds() -> usize {
    std::env::var("ANNALS_TAKEOVERS").map_or(2, |rounds| rounds.parse().unwrap())
}

fn election(store: &EventStore) -> Election {
    Election::new(store, "test").unwrap()
}

fn print(what: &str, mut times: Vec<Duration>) {
    times.sort_unstable();
    let (median, worst) = (times[times.len() / 2], times[times.len() - 1]);
    println!("takeover {what}: median {median:.1?}, worst {worst:.1?} of {}", times.len());
}

/// With the lease that there is unless set.
#[tokio::test(flavor = "multi_thread")]
async fn takeover_from_one_that_was_killed() {
    let mut times = Vec::new();
    let database = TestDatabase::create().await;
    let (store, client) = (database.store().await, database.client().await);
    client.batch_execute(TABLE).await.unwrap();
    let lease = LeaseOptions::default().time_to_live;
    for _ in 0..rounds() {
        let time = in_time(async {
            let mut leader = Candidate::start(&database, lease);
            let epoch = leader.writes(&client).await;
            let next = election(&store);
            let waiting = tokio::spawn(async move { next.campaign().await.unwrap() });
            // At any time between two renewals.
            let phase = lease.mul_f64(rand::rng().random_range(0.1..0.6));
            tokio::time::sleep(phase).await;
            leader.kill();
            let killed = Instant::now();
            let next = waiting.await.unwrap();
            let time = killed.elapsed();
            assert!(next.epoch() > epoch);
            next.resign().await.unwrap();
            time
        });
        times.push(time.await);
    }
    print("after kill -9", times);
}

#[tokio::test(flavor = "multi_thread")]
async fn takeover_from_one_that_resigns() {
    let mut times = Vec::new();
    let database = TestDatabase::create().await;
    let (store, other) = (database.store().await, database.store().await);
    let mut leader = election(&store).campaign().await.unwrap();
    for round in 0..rounds() {
        let next = election(if round % 2 == 0 { &other } else { &store });
        let waiting = tokio::spawn(async move { next.campaign().await.unwrap() });
        tokio::time::sleep(Duration::from_millis(rand::rng().random_range(600..1200))).await;
        leader.resign().await.unwrap();
        let resigned = Instant::now();
        leader = in_time(waiting).await.unwrap();
        times.push(resigned.elapsed());
    }
    print("after resigning", times);
}
