//! Whatever happens to a worker, every event is applied once, in order.

use std::time::Duration;

use annals_eventstore::{EventStore, postgres::Use};
use annals_projections::ReadModel;
use rand::Rng;

use crate::support::{
    Running, catch_up,
    database::{TestDatabase, kill, value},
    in_time, lease,
    ledger::{Tally, add},
    load::{Load, append_some, seeded},
    oracle::assert_exact,
    worker,
};

#[tokio::test(flavor = "multi_thread")]
async fn from_an_empty_store() {
    let database = TestDatabase::create().await;
    let (store, client) = (database.store().await, database.client().await);
    let mut running = Running::start(worker::<Tally>(&store));
    running.caught_up::<Tally>(&store).await;
    let (seed, _) = seeded();
    Load::start(&store, seed, 3, 40).done().await;
    running.caught_up::<Tally>(&store).await;
    running.stop().await;
    assert_exact::<Tally>(&store, &client).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn from_the_start_of_a_log_that_is_there() {
    let database = TestDatabase::create().await;
    let (store, client) = (database.store().await, database.client().await);
    let (seed, _) = seeded();
    Load::start(&store, seed, 3, 40).done().await;
    catch_up::<Tally>(&store).await;
    assert_exact::<Tally>(&store, &client).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn stopped_and_started_again_and_again() {
    let database = TestDatabase::create().await;
    let (store, client) = (database.store().await, database.client().await);
    let (_, mut rng) = seeded();
    for batch_size in [1, 2, 3, 7, 1000] {
        for _ in 0..20 {
            append_some(&store, &mut rng).await;
        }
        let mut running = Running::start(worker::<Tally>(&store).batch_size(batch_size));
        // Some stop in the middle of their work.
        if batch_size % 2 == 1 {
            running.caught_up::<Tally>(&store).await;
        }
        running.stop().await;
    }
    catch_up::<Tally>(&store).await;
    assert_exact::<Tally>(&store, &client).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn dropped_at_random_moments_under_load() {
    let database = TestDatabase::create().await;
    let (store, client) = (database.store().await, database.client().await);
    let (seed, mut rng) = seeded();
    let mut load = Load::start(&store, seed, 3, 400);
    let mut drops = 0;
    // Some of them come to work before they are dropped.
    let taken = "select coalesce(max(epoch), 0) from annals.leases";
    while drops < 40 || !load.is_done() || value::<i64>(&client, taken).await <= 5 {
        let batch_size = rng.random_range(1..12);
        let worker = worker::<Tally>(&store).batch_size(batch_size).lease(lease(30));
        let running = Running::start(worker);
        // Half a lease of standing by, then anything between nothing done and many batches.
        tokio::time::sleep(Duration::from_micros(rng.random_range(0..80_000))).await;
        running.abort().await;
        drops += 1;
    }
    load.done().await;
    catch_up::<Tally>(&store).await;
    assert_exact::<Tally>(&store, &client).await;
}

/// Polls the worker's future so often and then drops it: every place where it can wait is a place
/// where it can end.
#[tokio::test(flavor = "multi_thread")]
async fn dropped_after_every_number_of_steps() {
    let database = TestDatabase::create().await;
    let (store, client) = (database.store().await, database.client().await);
    let (_, mut rng) = seeded();
    for steps in 1..60 {
        append_some(&store, &mut rng).await;
        append_some(&store, &mut rng).await;
        let run = worker::<Tally>(&store).batch_size(2).lease(lease(1)).run();
        let mut run = std::pin::pin!(run);
        let mut left = steps;
        std::future::poll_fn(|cx| {
            left -= 1;
            assert!(run.as_mut().poll(cx).is_pending(), "a worker runs on");
            if left == 0 { std::task::Poll::Ready(()) } else { std::task::Poll::Pending }
        })
        .await;
    }
    catch_up::<Tally>(&store).await;
    assert_exact::<Tally>(&store, &client).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn its_connections_are_terminated_again_and_again() {
    let database = TestDatabase::create().await;
    let (store, client) = (database.store().await, database.client().await);
    let reader = database.store_as("victim").await;
    let (seed, mut rng) = seeded();
    let mut running = Running::start(worker::<Tally>(&reader).batch_size(3).lease(lease(500)));
    let mut load = Load::start(&store, seed, 3, 300);
    let mut killed = 0;
    while killed < 20 || !load.is_done() {
        tokio::time::sleep(Duration::from_millis(rng.random_range(1..120))).await;
        killed += kill(&client, "victim").await;
        assert!(running.is_running(), "it ended: {:?}", running.failure().await);
    }
    load.done().await;
    running.caught_up::<Tally>(&store).await;
    running.stop().await;
    assert_exact::<Tally>(&store, &client).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn stopping_ends_a_worker_that_waits_for_events() {
    let database = TestDatabase::create().await;
    let store = database.store().await;
    let worker = worker::<Tally>(&store).poll_interval(Duration::from_secs(3600));
    let mut running = Running::start(worker);
    add(&store, "a", 1).await;
    running.caught_up::<Tally>(&store).await;
    in_time(running.stop()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_connection_is_enough() {
    let database = TestDatabase::create().await;
    let options =
        EventStore::options().connections(Use::Read, 1).connections(Use::Project, 1).writers(1);
    let (store, client) = (database.store_with(options).await, database.client().await);
    let (seed, _) = seeded();
    let mut running = Running::start(worker::<Tally>(&store).batch_size(5));
    Load::start(&store, seed, 2, 60).done().await;
    running.caught_up::<Tally>(&store).await;
    running.stop().await;
    assert_exact::<Tally>(&store, &client).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn into_a_schema_of_the_programs_choice() {
    let database = TestDatabase::create().await;
    let client = database.client().await;
    client.batch_execute("create schema reports").await.unwrap();
    let options = EventStore::options().schema("books").read_models_schema("reports");
    let store = database.store_with(options).await;
    let mut running = Running::start(worker::<Tally>(&store));
    add(&store, "a", 1).await;
    running.caught_up::<Tally>(&store).await;
    running.stop().await;
    let sql = format!("select count(*) from reports.{}", <Tally as ReadModel>::TABLE);
    assert_eq!(value::<i64>(&client, &sql).await, 1);
    let elsewhere = "select count(*) from pg_tables where schemaname in ('public', 'annals')";
    assert_eq!(value::<i64>(&client, elsewhere).await, 0);
}
