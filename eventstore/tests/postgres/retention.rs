//! Removing idempotency keys.

use std::time::Duration;

use annals_eventstore::{EventStore, postgres::Use};

use crate::support::{TestDatabase, eventually, one, stream};

const DAY: Duration = Duration::from_secs(86_400);

async fn count(client: &tokio_postgres::Client) -> i64 {
    client.query_one("select count(*) from annals.idempotency", &[]).await.unwrap().get(0)
}

/// Records keys of so many days ago, each with the next number.
async fn fill(client: &tokio_postgres::Client, keys: i32, days: i32) {
    client
        .execute(
            "insert into annals.idempotency (key, fingerprint, version, position, events, created_at)
             select repeat('x', 150) || $2::float8 || '/' || n, '', 1, 1, 1,
                 clock_timestamp() - $2::float8 * interval '1 day'
             from generate_series(1, $1) n",
            &[&keys, &f64::from(days)],
        )
        .await
        .unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_old_keys_are_removed_however_many_there_are() {
    let database = TestDatabase::create().await;
    let store = database.store().await;
    let client = database.client().await;
    // Several steps of 512 pages of 8 kB, young ones at both ends.
    fill(&client, 100, 1).await;
    fill(&client, 50_000, 10).await;
    fill(&client, 100, 2).await;
    store.append(one(stream("a"), 1).idempotency_key("now")).await.unwrap();
    let pages: i64 = client
        .query_one("select pg_relation_size('annals.idempotency') / 8192", &[])
        .await
        .unwrap()
        .get(0);
    assert!(pages > 1024, "a test of a single step: {pages} pages");
    assert_eq!(store.remove_idempotency_keys(11 * DAY).await.unwrap(), 0);
    // Two at a time share the work, or one leaves it to the other.
    let (here, there) = tokio::join!(
        store.remove_idempotency_keys(9 * DAY),
        store.remove_idempotency_keys(9 * DAY)
    );
    let left = store.remove_idempotency_keys(9 * DAY).await.unwrap();
    assert_eq!(here.unwrap() + there.unwrap() + left, 50_000);
    assert_eq!(count(&client).await, 201);
    assert!(store.append(one(stream("a"), 1).idempotency_key("now")).await.unwrap().replayed);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_running_store_removes_keys_by_itself() {
    let database = TestDatabase::create().await;
    let client = database.client().await;
    let without = database.store().await;
    without.append(one(stream("a"), 1).idempotency_key("early")).await.unwrap();
    fill(&client, 10, 3).await;
    let store = database.store_with(EventStore::options().idempotency_retention(2 * DAY)).await;
    eventually("the old ones are removed", async || count(&client).await == 1).await;
    drop(store);
    // It goes on doing so.
    let retention = Duration::from_millis(500);
    let store = database.store_with(EventStore::options().idempotency_retention(retention)).await;
    // Also where only a part of it is kept.
    let store = store.using(Use::Project);
    eventually("that one too", async || count(&client).await == 0).await;
    store.append(one(stream("a"), 1).idempotency_key("late")).await.unwrap();
    eventually("and what came since", async || count(&client).await == 0).await;
}
