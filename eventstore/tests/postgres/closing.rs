//! Stores that are closed or dropped.

use std::time::Duration;

use annals_eventstore::{Error, EventStore};
use futures::future::join_all;
use tokio_postgres::Client;

use crate::{
    limits::{LONG, Outcomes, hold_all, let_go, until_blocked},
    support::{TestDatabase, eventually, history, in_time, log, one, stream},
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn closing_lets_what_was_accepted_finish() {
    in_time(async {
        let database = TestDatabase::create().await;
        let store = database.store().await;
        let appending: Vec<_> = (0..300)
            .map(|n| {
                let store = store.clone();
                tokio::spawn(async move {
                    let mut outcomes = Vec::new();
                    for round in 0.. {
                        let key = format!("{n}-{round}");
                        let outcome = store.append(one(stream(&key), n)).await.map(drop);
                        let closed = matches!(outcome, Err(Error::Closed));
                        outcomes.push((key, outcome));
                        if closed {
                            return outcomes;
                        }
                    }
                    unreachable!()
                })
            })
            .collect();
        eventually("appends are under way", async || {
            store.safe_position().await.unwrap() > annals_eventstore::Position::new(500)
        })
        .await;
        let clone = store.clone();
        // From two clones at once, and again.
        tokio::join!(store.close(), clone.close());
        store.close().await;
        assert_eq!(clone.close_within(Duration::ZERO).await, 0);
        let outcomes: Vec<_> =
            join_all(appending).await.into_iter().flat_map(Result::unwrap).collect();
        // Nothing failed but what came too late.
        let again = database.store_with(EventStore::options()).await;
        let count = Outcomes::of(&again, &outcomes).await;
        assert_eq!((count.unknown, count.not_recorded), (0, 300), "{count:?}");
        assert_eq!(log(&again).await.len(), count.recorded);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn closing_in_a_time_gives_up_what_is_not_done() {
    in_time(async {
        let database = TestDatabase::create().await;
        let options = EventStore::options().append_timeout(LONG).lock_timeout(LONG);
        let url = database.url_as("closing");
        let store = options.connect(&url).await.unwrap();
        let other = database.client().await;
        let watcher = database.client().await;
        hold_all(&other).await;
        let appending: Vec<_> = (0..100)
            .map(|n| {
                let store = store.clone();
                tokio::spawn(async move {
                    (n.to_string(), store.append(one(stream(n), n)).await.map(drop))
                })
            })
            .collect();
        until_blocked(&watcher).await;
        let cut_off = store.close_within(Duration::from_millis(300)).await;
        assert_eq!(cut_off, 100);
        let outcomes: Vec<_> = join_all(appending).await.into_iter().map(Result::unwrap).collect();
        let_go(&other).await;
        let again = database.store().await;
        // What was on its way is cancelled, or done; then it stays so.
        no_connections(&watcher, "closing").await;
        let count = Outcomes::of(&again, &outcomes).await;
        assert_eq!(count.recorded + count.overloaded, 0, "{count:?}");
        assert!(count.unknown > 0 && count.unknown + count.not_recorded == 100, "{count:?}");
    })
    .await;
}

async fn no_connections(watcher: &Client, application_name: &str) {
    eventually("all connections are closed", async || {
        let sql = "select count(*) from pg_stat_activity
            where datname = current_database() and application_name = $1";
        watcher.query_one(sql, &[&application_name]).await.unwrap().get::<_, i64>(0) == 0
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_closed_store_has_no_connections() {
    let database = TestDatabase::create().await;
    let watcher = database.client().await;
    let store = EventStore::options().connect(&database.url_as("closed")).await.unwrap();
    let listener = store.database().unwrap().listen().await.unwrap();
    store.append(one(stream("a"), 1)).await.unwrap();
    assert_eq!(history(&store, &stream("a")).await.len(), 1);
    store.close().await;
    no_connections(&watcher, "closed").await;
    // It does not sleep on.
    in_time(listener.wait(LONG)).await;
    assert!(listener.is_closed());
    assert!(matches!(store.append(one(stream("a"), 1)).await, Err(Error::Closed)));
    assert!(matches!(store.safe_position().await, Err(Error::Closed)));
    assert!(matches!(store.database().unwrap().listen().await, Err(Error::Closed)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dropped_store_finishes_what_it_accepted_and_leaves_no_connections() {
    let database = TestDatabase::create().await;
    let watcher = database.client().await;
    let store = EventStore::options().connect(&database.url_as("dropped")).await.unwrap();
    let other = database.client().await;
    hold_all(&other).await;
    let mut append = Box::pin(async { store.append(one(stream("a"), 1)).await });
    assert!(futures::poll!(&mut append).is_pending());
    until_blocked(&watcher).await;
    drop(append);
    drop(store);
    let_go(&other).await;
    no_connections(&watcher, "dropped").await;
    assert_eq!(log(&database.store().await).await.len(), 1);
}
