//! A server that has frozen: its connections are open, and nothing comes.

use std::time::{Duration, Instant};

use annals_eventstore::{
    Error, EventStore, Options,
    postgres::Use,
    testkit::faults::{Link, Passage},
};

use crate::{
    limits::LONG,
    support::{TestDatabase, counter::Counter, history, in_time, one, stream},
};

const SECOND: Duration = Duration::from_secs(1);

/// A store that has connections for appending and loading, before the server freezes.
async fn at_work(database: &TestDatabase, options: Options) -> (EventStore, Link) {
    let link = database.link().await;
    let store = options.connect(link.url()).await.unwrap();
    store.append(one(stream("a"), 1)).await.unwrap();
    assert!(store.load::<Counter>("a").await.unwrap().is_none());
    // The nudge is out.
    tokio::time::sleep(SECOND / 5).await;
    link.set(Passage::Stalled);
    (store, link)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_waits_for_ever_for_a_server_that_has_frozen() {
    in_time(async {
        let database = TestDatabase::create().await;
        let options = EventStore::options()
            .connect_timeout(5 * SECOND)
            .append_timeout(10 * SECOND)
            .statement_timeout(Use::Read, 5 * SECOND);
        let (store, _link) = at_work(&database, options).await;
        let started = Instant::now();
        let (append, load) =
            tokio::join!(store.append(one(stream("a"), 2)), store.load::<Counter>("a"));
        let error = append.unwrap_err();
        assert!(matches!(error, Error::Indeterminate { .. }), "{error:?}");
        let error = load.unwrap_err();
        assert!(matches!(error, Error::Database { .. }) && error.is_retryable(), "{error:?}");
        // Nor for a new connection to it.
        let error = store.append(one(stream("a"), 3)).await.unwrap_err();
        assert!(error.is_retryable(), "{error:?}");
        assert!(!matches!(error, Error::Indeterminate { .. }), "it was not sent: {error:?}");
        assert!(started.elapsed() < LONG / 2, "it took {:?}", started.elapsed());
        // What was not passed on is not recorded.
        assert_eq!(history(&database.store().await, &stream("a")).await.len(), 1);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_can_be_closed_although_its_server_has_frozen() {
    in_time(async {
        let database = TestDatabase::create().await;
        let options = EventStore::options().append_timeout(LONG).statement_timeout(Use::Read, LONG);
        let (store, _link) = at_work(&database, options).await;
        let appending = tokio::spawn({
            let store = store.clone();
            async move { store.append(one(stream("a"), 2)).await }
        });
        let loading = tokio::spawn({
            let store = store.clone();
            async move { store.load::<Counter>("a").await.map(drop) }
        });
        tokio::time::sleep(SECOND / 2).await;
        let started = Instant::now();
        assert_eq!(store.close_within(SECOND).await, 1);
        assert!(started.elapsed() < LONG / 4, "it took {:?}", started.elapsed());
        let error = appending.await.unwrap().unwrap_err();
        assert!(matches!(error, Error::Indeterminate { .. }), "{error:?}");
        loading.abort();
    })
    .await;
}
