//! What was decided and came to nothing, and what was taken for recorded and is not.

use std::time::Duration;

use annals_eventstore::{
    Envelope, Error, EventStore, ExecuteError, Position, Version, postgres::Use,
};
use tokio_postgres::{Client, error::SqlState};

use crate::support::{
    TestDatabase,
    counter::{BelowZero, Change, load},
    eventually, in_time, log,
};

/// True once a statement of the store waits for a lock.
async fn waits(client: &Client) -> bool {
    let waiting = "select exists (select from pg_stat_activity where wait_event_type = 'Lock'
        and application_name = 'annals' and datname = current_database())";
    client.query_one(waiting, &[]).await.unwrap().get(0)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_decision_that_could_not_be_checked_is_made_again_from_what_is_recorded() {
    let database = TestDatabase::create().await;
    let options = EventStore::options().statement_timeout(Use::Read, Duration::from_millis(300));
    let store = database.store_with(options).await;
    for name in ["a", "b"] {
        store.execute(Change::new(name, [1])).await.unwrap();
    }
    let mut client = database.client().await;
    let lock = client.transaction().await.unwrap();
    lock.batch_execute("lock table annals.streams in access exclusive mode").await.unwrap();
    // The one for a is decided; the one for b is refused, so its state is compared with the log, and
    // that load is cut off by its timeout.
    let executing = tokio::spawn({
        let store = store.clone();
        async move {
            let lot = [("a", 10), ("b", -5)].map(|(name, by)| {
                Envelope::new(Change::new(name, [by])).idempotency_key(format!("key {name}"))
            });
            store.execute_all(lot).await
        }
    });
    let observer = database.client().await;
    eventually("the load waits", || waits(&observer)).await;
    eventually("the load is cut off", async || !waits(&observer).await).await;
    lock.commit().await.unwrap();
    let outcomes = in_time(executing).await.unwrap().unwrap();
    assert_eq!(outcomes[0].as_ref().unwrap().version, Version::new(2));
    let refused = outcomes[1].as_ref().unwrap_err();
    assert!(matches!(refused, ExecuteError::Rejected(BelowZero { .. })), "{refused:?}");
    // What the store has cached, and what another one reads.
    for store in [store, database.store().await] {
        let a = load(&store, "a").await;
        assert_eq!((a.state.total, a.version), (11, Version::new(2)));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_state_that_is_ahead_of_the_log_is_loaded_anew() {
    let database = TestDatabase::create().await;
    let store = database.store().await;
    for (name, changes) in [("a", [1, 10, 100]), ("b", [100, 1, -91]), ("c", [1, 10, 100])] {
        for by in changes {
            store.execute(Change::new(name, [by])).await.unwrap();
        }
    }
    // As after a failover to a server that lacked the last event.
    let client = database.client().await;
    client
        .batch_execute(
            "alter table annals.events disable trigger all;
             delete from annals.events where version = 3;
             update annals.streams set version = 2",
        )
        .await
        .unwrap();
    let committed = store.execute(Change::new("a", [1000])).await.unwrap();
    assert_eq!(committed.version, Version::new(3));
    // The cached state would refuse it, so nothing would be appended that could be a conflict.
    let committed = store.execute(Change::new("b", [-50])).await.unwrap();
    assert_eq!(committed.version, Version::new(3));
    for store in [store, database.store().await] {
        assert_eq!(load(&store, "a").await.state.total, 1011);
        assert_eq!(load(&store, "b").await.state.total, 51);
        assert_eq!(load(&store, "c").await.state.total, 11);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_commit_never_passes_a_rollback_off_as_done() {
    let database = TestDatabase::create().await;
    let store = database.store().await;
    let direct = database.client().await;
    direct.batch_execute("create table notes (number bigint primary key)").await.unwrap();

    let begun = async || store.database().unwrap().begin().await.unwrap();
    let insert = "insert into notes values ($1)";
    let transaction = begun().await;
    transaction.client().unwrap().execute(insert, &[&1i64]).await.unwrap();
    let failed = transaction.client().unwrap().execute(insert, &[&1i64]).await.unwrap_err();
    assert_eq!(failed.code(), Some(&SqlState::UNIQUE_VIOLATION));
    let error = transaction.commit().await.unwrap_err();
    assert!(matches!(error, Error::Database { .. }), "{error:?}");

    for ended in ["rollback", "commit", "rollback; begin"] {
        let transaction = begun().await;
        transaction.client().unwrap().batch_execute(ended).await.unwrap();
        let error = transaction.commit().await.unwrap_err();
        assert!(matches!(error, Error::UnitEnded), "{ended}: {error:?}");
    }
    let kept: i64 = direct.query_one("select count(*) from notes", &[]).await.unwrap().get(0);
    assert_eq!((kept, log(&store).await.len()), (0, 0));

    let transaction = begun().await;
    transaction.client().unwrap().execute(insert, &[&1i64]).await.unwrap();
    transaction.commit().await.unwrap();
    let kept: i64 = direct.query_one("select count(*) from notes", &[]).await.unwrap().get(0);
    assert_eq!(kept, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_page_that_nobody_waits_for_holds_up_no_one() {
    let database = TestDatabase::create().await;
    let store = database.store_with(EventStore::options().connections(Use::Read, 1)).await;
    store.execute(Change::new("a", [1])).await.unwrap();
    let mut client = database.client().await;
    let lock = client.transaction().await.unwrap();
    lock.batch_execute("lock table annals.events in access exclusive mode").await.unwrap();
    let observer = database.client().await;
    let reading = tokio::spawn({
        let store = store.clone();
        async move { store.read_page(None, Position::START, Position::new(9), 9).await }
    });
    eventually("the page waits", || waits(&observer)).await;
    reading.abort();
    // On the only connection there may be, while the table is still locked.
    let safe = in_time(store.safe_position()).await.unwrap();
    assert_eq!(safe, Position::new(1));
    eventually("the server has stopped", async || !waits(&observer).await).await;
    lock.commit().await.unwrap();
    assert_eq!(log(&store).await.len(), 1);
}
