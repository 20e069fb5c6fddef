//! Migrations, and several stores in one database.

use annals_eventstore::{Error, EventStore, Position};
use futures::future::join_all;

use crate::support::{TestDatabase, direct, log, numbers, one, stream};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn several_programs_start_on_an_empty_database() {
    let database = TestDatabase::create().await;
    let stores = join_all((0..6).map(|_| database.store())).await;
    for (number, store) in (0..).zip(&stores) {
        store.append(one(stream("a"), number)).await.unwrap();
    }
    for store in &stores {
        assert_eq!(numbers(&log(store).await), [0, 1, 2, 3, 4, 5]);
    }
    let client = database.client().await;
    let applied = client.query("select number from annals.migrations", &[]).await.unwrap();
    let ids = client.query("select id from annals.store", &[]).await.unwrap();
    assert_eq!((applied.len(), ids.len()), (migrations(&client).await as usize, 1));
}

/// How many migrations there are, each applied once.
async fn migrations(client: &tokio_postgres::Client) -> i64 {
    let sql = "select max(number)::bigint from annals.migrations";
    client.query_one(sql, &[]).await.unwrap().get(0)
}

#[tokio::test]
async fn a_changed_migration_is_refused() {
    let database = TestDatabase::create().await;
    drop(database.store().await);
    let client = database.client().await;
    let change = "update annals.migrations set checksum = 'other' where number = 1";
    client.batch_execute(change).await.unwrap();
    match EventStore::connect(&database.url()).await {
        Err(error @ Error::MigrationChanged { number: 1, .. }) => assert!(!error.is_retryable()),
        other => panic!("not refused: {other:?}"),
    }
}

#[tokio::test]
async fn a_newer_schema_is_refused() {
    let database = TestDatabase::create().await;
    drop(database.store().await);
    let client = database.client().await;
    let known = migrations(&client).await as i32;
    let newer = format!(
        "insert into annals.migrations (number, checksum) values ({}, 'unknown')",
        known + 1
    );
    client.batch_execute(&newer).await.unwrap();
    match EventStore::connect(&database.url()).await {
        Err(error @ Error::SchemaTooNew { .. }) => {
            let Error::SchemaTooNew { schema, found, supported } = &error else { unreachable!() };
            assert_eq!((schema.as_str(), *found, *supported), ("annals", known + 1, known));
            assert!(error.to_string().contains("run a newer version of the program"), "{error}");
            assert!(!error.is_retryable());
        }
        other => panic!("not refused: {other:?}"),
    }
}

#[tokio::test]
async fn a_failed_migration_leaves_nothing_behind() {
    let database = TestDatabase::create().await;
    let client = database.client().await;
    // Something of the user's own stands in the way of the first migration.
    client.batch_execute("create schema annals; create table annals.leases ()").await.unwrap();
    let error = EventStore::connect(&database.url()).await.unwrap_err();
    assert!(matches!(error, Error::Database { retryable: false, .. }), "{error:?}");
    client.batch_execute("drop table annals.leases").await.unwrap();
    database.store().await.append(one(stream("a"), 1)).await.unwrap();
}

#[tokio::test]
async fn a_schema_name_cannot_be_anything_but_a_name() {
    let database = TestDatabase::create().await;
    for name in ["", "Annals", "1st", "a-b", "a b", "a\"; drop schema x; --", &"x".repeat(41), "é"]
    {
        let refused = EventStore::options().schema(name).connect(&database.url()).await;
        assert!(matches!(refused, Err(Error::InvalidSchema { .. })), "{name:?}: {refused:?}");
    }
    // A name that SQL reserves is one, too.
    let store = database.store_with(EventStore::options().schema("select")).await;
    store.append(one(stream("a"), 1)).await.unwrap();
    assert_eq!(log(&store).await.len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_stores_in_one_database_do_not_mix() {
    let database = TestDatabase::create().await;
    let here = database.store().await;
    let there = database.store_with(EventStore::options().schema("other")).await;
    // Even if they drew the same id, by which their locks are known.
    let client = database.client().await;
    let same = "update other.store set id = (select id from annals.store)";
    client.batch_execute(same).await.unwrap();

    let append = |store: &EventStore, numbers: std::ops::Range<i64>| {
        let store = store.clone();
        tokio::spawn(async move {
            for number in numbers {
                let append = one(stream("a"), number).idempotency_key(number.to_string());
                assert!(!store.append(append).await.unwrap().replayed);
            }
        })
    };
    let tasks = [append(&here, 0..100), append(&there, 0..150)];
    join_all(tasks).await.into_iter().for_each(Result::unwrap);
    assert!(numbers(&log(&here).await).into_iter().eq(0..100));
    assert!(numbers(&log(&there).await).into_iter().eq(0..150));
    assert_eq!(here.safe_position().await.unwrap(), Position::new(100));
    assert_eq!(there.safe_position().await.unwrap(), Position::new(150));
}

#[tokio::test]
async fn a_store_without_events_has_no_positions() {
    let database = TestDatabase::create().await;
    let store = database.store().await;
    assert_eq!(store.safe_position().await.unwrap(), Position::START);
    let client = database.client().await;
    assert_eq!(direct::last_position(&client).await, 0);
    let first = store.append(one(stream("a"), 1)).await.unwrap();
    assert_eq!(first.first_position, Position::new(1));
    assert_eq!(store.safe_position().await.unwrap(), Position::new(1));
}
