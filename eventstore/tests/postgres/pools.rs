//! Connections for each use, none of which starves another.

use std::time::{Duration, Instant};

use annals_eventstore::{Error, EventStore, Version, postgres::Use};
use tokio_postgres::error::SqlState;

use crate::{
    limits::{LONG, let_go},
    support::{
        TestDatabase, counter::Counter, eventually, history, in_time, is_waiting, log, one, stream,
    },
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn slow_queries_hold_up_neither_appends_nor_leases_nor_followers() {
    in_time(async {
        use annals_eventstore::postgres::{Checkpoint, Lease, LeaseOptions};
        let database = TestDatabase::create().await;
        let store = database.store_with(EventStore::options().connections(Use::Read, 2)).await;
        let lease = Lease::try_acquire(store.database().unwrap(), "a", LeaseOptions::default());
        let lease = lease.await.unwrap().unwrap();
        let mut taken = Vec::new();
        for _ in 0..2 {
            let client = store.database().unwrap().client().await.unwrap();
            taken.push(tokio::spawn(
                async move { client.batch_execute("select pg_sleep(50)").await },
            ));
        }
        let a = stream("a");
        let mut reading = Box::pin(history(&store, &a));
        assert!(futures::poll!(&mut reading).is_pending(), "reading has to wait");

        store.append(one(stream("a"), 1)).await.unwrap();
        lease.renew().await.unwrap();
        let following = store.using(Use::Project);
        assert_eq!(log(&following).await.len(), 1);
        let rebuilding = store.using(Use::Rebuild);
        assert_eq!(log(&rebuilding).await.len(), 1);
        let database = store.database().unwrap();
        let checkpoint = Checkpoint::take_over(database, "a", lease.epoch()).await.unwrap();
        let mut client = following.database().unwrap().client().await.unwrap();
        let transaction = client.transaction().await.unwrap();
        checkpoint.advance(&transaction, annals_eventstore::Position::new(1)).await.unwrap();
        transaction.commit().await.unwrap();
        assert!(taken.iter().all(|task| !task.is_finished()), "the test tests nothing");
        for task in taken {
            task.abort();
        }
    })
    .await;
}

/// A unit of work may be open for long, and its program may ask for something else meanwhile.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn units_that_take_all_connections_hold_up_only_units() {
    in_time(async {
        let database = TestDatabase::create().await;
        let options = EventStore::options().connections(Use::Read, 1).connections(Use::Unit, 2);
        let store = database.store_with(options).await;
        let units = [store.begin().await.unwrap(), store.begin().await.unwrap()];
        let mut third = Box::pin(store.begin());
        assert!(is_waiting(&mut third).await);

        store.append(one(stream("a"), 1)).await.unwrap();
        assert_eq!(history(&store, &stream("a")).await.len(), 1);
        assert_eq!(log(&store).await.len(), 1);
        assert!(store.load::<Counter>("a").await.unwrap().is_none());
        drop(units);
        third.await.unwrap().rollback().await.unwrap();
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_query_that_takes_too_long_is_ended_and_may_be_tried_again() {
    let database = TestDatabase::create().await;
    let options = EventStore::options()
        .statement_timeout(Use::Read, Duration::from_millis(500))
        .statement_timeout(Use::Rebuild, None);
    let store = database.store_with(options).await;
    store.append(one(stream("a"), 1)).await.unwrap();
    let other = database.client().await;
    other.batch_execute("begin; lock table annals.events").await.unwrap();
    let mut events = std::pin::pin!(store.read_stream(&stream("a"), Version::NONE));
    let error = futures::TryStreamExt::try_next(&mut events).await.unwrap_err();
    assert!(error.is_retryable(), "{error:?}");
    let_go(&other).await;
    let rebuilding = store.using(Use::Rebuild);
    let client = rebuilding.database().unwrap().client().await.unwrap();
    client.batch_execute("select pg_sleep(1)").await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_projections_statement_that_takes_too_long_is_ended() {
    let database = TestDatabase::create().await;
    let options = EventStore::options()
        .statement_timeout(Use::Project, Duration::from_millis(500))
        .statement_timeout(Use::Read, None);
    let store = database.store_with(options).await;
    store.append(one(stream("a"), 1)).await.unwrap();
    let other = database.client().await;
    other.batch_execute("begin; lock table annals.events").await.unwrap();
    let following = store.using(Use::Project);
    let started = Instant::now();
    let mut events = std::pin::pin!(following.read_all(annals_eventstore::Position::START));
    let error = futures::TryStreamExt::try_next(&mut events).await.unwrap_err();
    assert!(error.is_retryable(), "{error:?}");
    assert!(started.elapsed() < LONG / 4, "it took {:?}", started.elapsed());
    let_go(&other).await;
    let client = store.database().unwrap().client().await.unwrap();
    client.batch_execute("select pg_sleep(1)").await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_units_statement_that_takes_too_long_ends_the_unit() {
    let database = TestDatabase::create().await;
    let options = EventStore::options()
        .statement_timeout(Use::Unit, Duration::from_millis(500))
        .statement_timeout(Use::Read, None);
    let store = database.store_with(options).await;
    let mut unit = store.begin().await.unwrap();
    unit.append(one(stream("a"), 1)).await.unwrap();
    let started = Instant::now();
    let error = unit.sql().unwrap().batch_execute("select pg_sleep(50)").await.unwrap_err();
    assert_eq!(error.code(), Some(&SqlState::QUERY_CANCELED));
    assert!(started.elapsed() < LONG / 4, "it took {:?}", started.elapsed());
    assert!(matches!(unit.commit().await, Err(Error::Database { .. })));
    assert!(log(&store).await.is_empty());
    // The statement is limited, not the unit.
    let mut unit = store.begin().await.unwrap();
    unit.append(one(stream("a"), 1)).await.unwrap();
    tokio::time::sleep(Duration::from_secs(1)).await;
    unit.commit().await.unwrap();
    let client = store.database().unwrap().client().await.unwrap();
    client.batch_execute("select pg_sleep(1)").await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_listener_wakes_up_when_its_connection_dies() {
    let database = TestDatabase::create().await;
    let store = EventStore::options().connect(&database.url_as("listening")).await.unwrap();
    let listener = store.database().unwrap().listen().await.unwrap();
    let client = database.client().await;
    let killing = async {
        eventually("the listener is killed", async || {
            crate::support::kill(&client, "listening").await;
            listener.is_closed()
        })
        .await;
    };
    in_time(async { tokio::join!(listener.wait(LONG), killing) }).await;
}
