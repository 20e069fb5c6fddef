//! What reaches a worker: in order, without gaps, with a nudge or without.

use std::time::Duration;

use annals_eventstore::Position;
use annals_projections::QueryReadModels;
use tokio_postgres::{Client, GenericClient, types::Json};
use uuid::Uuid;

use crate::support::{
    PATIENCE, Running, catch_up,
    database::{TestDatabase, kill_after, value},
    eventually,
    ledger::{Tally, add, unrelated},
    oracle::assert_exact,
    worker,
};

/// Appends past any store, so without a nudge: one event to a ledger. Returns its position.
pub(crate) async fn append_silently(client: &impl GenericClient, ledger: &str) -> Position {
    let sql = "select first_position from annals.append_batch(
        '{1}', '{ledger}', array[$1], '{-1}', '{1}', '{1}', '{1}', array[$2::uuid], '{added}', '{1}',
        '{null}', '{null}', array[$3::json], '{null}', '{}', '{}', '{}', '{}', '{}', '{}', '{}')";
    let payload = Json(serde_json::json!({"amount": 1}));
    let row = client.query_one(sql, &[&ledger, &Uuid::now_v7(), &payload]).await.unwrap();
    Position::new(row.get(0))
}

async fn tally(client: &Client, ledger: &str) -> i64 {
    let sql = "select coalesce(sum(events), 0)::bigint from tallies where ledger = $1";
    client.query_one(sql, &[&ledger]).await.unwrap().get(0)
}

#[tokio::test(flavor = "multi_thread")]
async fn events_without_a_nudge_arrive_by_polling() {
    let database = TestDatabase::create().await;
    let (store, client) = (database.store().await, database.client().await);
    let mut running = Running::start(worker::<Tally>(&store));
    running.caught_up::<Tally>(&store).await;
    for n in 1..=5 {
        let position = append_silently(&client, "a").await;
        store.query::<Tally>().wait_for(position, PATIENCE / 2).await.unwrap();
        assert_eq!(tally(&client, "a").await, n);
    }
    running.stop().await;
    assert_exact::<Tally>(&store, &client).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_nudge_wakes_a_worker_that_hardly_ever_polls() {
    let database = TestDatabase::create().await;
    let (store, client) = (database.store().await, database.client().await);
    let worker = worker::<Tally>(&store).poll_interval(Duration::from_secs(3600));
    let mut running = Running::start(worker);
    for _ in 0..20 {
        add(&store, "a", 1).await;
        running.caught_up::<Tally>(&store).await;
    }
    running.stop().await;
    assert_exact::<Tally>(&store, &client).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_listener_that_dies_is_replaced() {
    let database = TestDatabase::create().await;
    let (store, client) = (database.store().await, database.client().await);
    let reader = database.store_as("victim").await;
    let mut running = Running::start(worker::<Tally>(&reader));
    for _ in 0..5 {
        eventually("a listener", || async { kill_after(&client, "victim", "listen%").await > 0 })
            .await;
        add(&store, "a", 1).await;
        running.caught_up::<Tally>(&store).await;
    }
    running.stop().await;
    assert_exact::<Tally>(&store, &client).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_append_in_flight_is_waited_for_and_not_passed() {
    let database = TestDatabase::create().await;
    let (store, client) = (database.store().await, database.client().await);
    let mut other = database.client().await;
    let mut running = Running::start(worker::<Tally>(&store));
    for round in 1..=5 {
        let open = other.transaction().await.unwrap();
        let first = append_silently(&open, "a").await;
        let second = add(&store, "b", 1).await.last_position;
        assert!(first < second);
        let below = Position::new(first.get() - 1);
        store.query::<Tally>().wait_for(below, PATIENCE / 2).await.unwrap();
        tokio::time::sleep(Duration::from_millis(60)).await;
        let reached: i64 = value(&client, "select position from annals.checkpoints").await;
        assert_eq!(reached, below.get(), "the worker passed an append in flight");
        if round % 2 == 0 {
            open.rollback().await.unwrap();
        } else {
            open.commit().await.unwrap();
        }
        running.caught_up::<Tally>(&store).await;
        assert_eq!(tally(&client, "b").await, round);
    }
    assert_eq!(tally(&client, "a").await, 3);
    running.stop().await;
    assert_exact::<Tally>(&store, &client).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_for_it_moves_the_checkpoint_too() {
    let database = TestDatabase::create().await;
    let (store, client) = (database.store().await, database.client().await);
    for n in 0..50 {
        unrelated(&store, &n.to_string()).await;
    }
    // More of the others' than fit a batch, before, between and after its own.
    let mut running = Running::start(worker::<Tally>(&store).batch_size(3));
    running.caught_up::<Tally>(&store).await;
    for n in 0..20 {
        add(&store, "a", n).await;
        for other in 0..n {
            unrelated(&store, &other.to_string()).await;
        }
    }
    running.caught_up::<Tally>(&store).await;
    let reached: i64 = value(&client, "select position from annals.checkpoints").await;
    assert_eq!(reached, store.safe_position().await.unwrap().get());
    running.stop().await;
    assert_exact::<Tally>(&store, &client).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn batches_end_anywhere() {
    let database = TestDatabase::create().await;
    let (store, client) = (database.store().await, database.client().await);
    // As many events as a batch takes, one less, one more, and none.
    for (batch_size, events) in [(4, 4), (4, 3), (4, 5), (4, 8), (1, 1), (1, 2), (5, 0)] {
        for n in 0..events {
            add(&store, "a", n).await;
        }
        let mut running = Running::start(worker::<Tally>(&store).batch_size(batch_size));
        running.caught_up::<Tally>(&store).await;
        running.stop().await;
        assert_exact::<Tally>(&store, &client).await;
    }
    catch_up::<Tally>(&store).await;
}
