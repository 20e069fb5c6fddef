//! Behind a pooler that gives each transaction another session.

use std::time::Duration;

use annals_eventstore::{
    Error, EventStore,
    postgres::{Checkpoint, Lease, LeaseOptions},
};

use crate::support::{TestDatabase, eventually, in_time, log, one, stream};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_that_is_not_told_of_the_pooler_says_what_to_do() {
    let database = TestDatabase::create().await;
    let pooler = database.pooler().await;
    let error = EventStore::connect(&pooler.url()).await.unwrap_err();
    assert!(matches!(error, Error::SettingsRefused { .. }), "{error:?}");
    assert!(error.to_string().contains("transaction_pooler"), "{error}");
    assert!(!error.is_retryable());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_isolation_that_would_lose_events_is_refused() {
    let database = TestDatabase::create().await;
    let client = database.client().await;
    let name: String = client.query_one("select current_database()", &[]).await.unwrap().get(0);
    let strict = "alter database {} set default_transaction_isolation = 'repeatable read'";
    client.batch_execute(&strict.replace("{}", &name)).await.unwrap();
    let pooler = database.pooler().await;
    let options = EventStore::options().transaction_pooler();
    let error = options.connect(&pooler.url()).await.unwrap_err();
    let Error::IsolationTooStrict { found } = &error else { panic!("{error:?}") };
    assert_eq!(found, "repeatable read");
    assert!(!error.is_retryable());
}

/// Of several programs too: names of statements are the same in all of them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_statement_and_no_setting_stays_behind_in_a_session() {
    in_time(async {
        let database = TestDatabase::create().await;
        let pooler = database.pooler().await;
        let connect = async || {
            EventStore::options().transaction_pooler().connect(&pooler.url()).await.unwrap()
        };
        let stores = [connect().await, connect().await];
        for (number, store) in (0..).zip(&stores) {
            let appends = (0..100).map(|n| store.append(one(stream(n % 10), number)));
            let appended = futures::future::join_all(appends).await;
            assert!(appended.iter().all(Result::is_ok), "{appended:?}");
        }
        assert_eq!(log(&stores[1]).await.len(), 200);
        let database = stores[0].database().unwrap();
        // Sessions are handed out in turn: this sees all of them.
        for _ in 0..20 {
            let client = database.client().await.unwrap();
            let sql = "select (select count(*) from pg_prepared_statements where name <> ''),
                current_setting('lock_timeout')";
            let row = client.query_one(sql, &[]).await.unwrap();
            assert_eq!((row.get::<_, i64>(0), row.get::<_, &str>(1)), (0, "0"));
        }
    })
    .await;
}

/// A unit holds a session of the server while it asks what a statement takes.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn as_many_units_as_there_are_sessions_ask_for_no_other() {
    in_time(async {
        let database = TestDatabase::create().await;
        let pooler = database.pooler().await;
        let options = EventStore::options().transaction_pooler();
        let store = options.connect(&pooler.url()).await.unwrap();
        // The pooler has six.
        let mut units = Vec::new();
        for _ in 0..6 {
            units.push(store.begin().await.unwrap());
        }
        for (number, mut unit) in (0i64..).zip(units) {
            assert!(unit.idempotency_key(number.to_string(), &number).await.unwrap().is_none());
            unit.append(one(stream(number), number)).await.unwrap();
            let row = unit.sql().unwrap().query_one("select $1::bigint", &[&number]).await.unwrap();
            assert_eq!(row.get::<_, i64>(0), number);
            unit.commit().await.unwrap();
        }
        assert_eq!(log(&store).await.len(), 6);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_programs_statement_of_the_same_name_is_no_hindrance() {
    in_time(async {
        let database = TestDatabase::create().await;
        let pooler = database.pooler().await;
        // As those leave them that are killed between two messages, and more of them: names are numbers,
        // and each third is taken on the session that is used first.
        let (left, connection) =
            tokio_postgres::connect(&pooler.url(), tokio_postgres::NoTls).await.unwrap();
        tokio::spawn(connection);
        let prepare = |number| format!("prepare s{number} as select 1; ");
        let prepare: String = (0..3000).step_by(3).map(prepare).collect();
        left.batch_execute(&format!("begin; {prepare} commit")).await.unwrap();
        drop(left);
        let options = EventStore::options().transaction_pooler();
        let store = loop {
            match options.clone().connect(&pooler.url()).await {
                Ok(store) => break store,
                Err(error) => assert!(error.is_retryable(), "{error:?}"),
            }
        };
        while let Err(error) = store.append(one(stream("a"), 1).idempotency_key("1")).await {
            assert!(error.is_retryable(), "{error:?}");
        }
        assert_eq!(log(&store).await.len(), 1);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn leases_and_checkpoints_need_no_session() {
    in_time(async {
        let database = TestDatabase::create().await;
        let pooler = database.pooler().await;
        let options = EventStore::options().transaction_pooler();
        let store = options.connect(&pooler.url()).await.unwrap();
        store.append(one(stream("a"), 1)).await.unwrap();
        let database = store.database().unwrap();
        let mut epoch = 0;
        for _ in 0..10 {
            let lease = Lease::try_acquire(database, "a", LeaseOptions::default()).await.unwrap();
            let lease = lease.expect("it is free");
            assert!(lease.epoch() > epoch);
            epoch = lease.epoch();
            lease.renew().await.unwrap();
            let taken = Lease::try_acquire(database, "a", LeaseOptions::default()).await.unwrap();
            assert!(taken.is_none());
            let checkpoint = Checkpoint::take_over(database, "a", epoch).await.unwrap();
            let mut client = database.client().await.unwrap();
            let transaction = client.transaction().await.unwrap();
            checkpoint.advance(&transaction, checkpoint.position().plus(1)).await.unwrap();
            transaction.commit().await.unwrap();
            lease.release().await.unwrap();
        }
        let position = Checkpoint::position_of(database, "a").await.unwrap();
        assert_eq!(position, Some(annals_eventstore::Position::new(10)));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_direct_url_brings_the_nudges() {
    in_time(async {
        let database = TestDatabase::create().await;
        let pooler = database.pooler().await;
        let options = EventStore::options().transaction_pooler().direct_url(database.url());
        let store = options.connect(&pooler.url()).await.unwrap();
        let listener = store.database().unwrap().listen().await.unwrap();
        store.append(one(stream("a"), 1)).await.unwrap();
        // It hangs if there is no nudge.
        listener.wait(Duration::from_secs(3600)).await;

        // Without one, who waits polls.
        let options = EventStore::options().transaction_pooler();
        let store = options.connect(&pooler.url()).await.unwrap();
        let listener = store.database().unwrap().listen().await.unwrap();
        listener.wait(Duration::from_millis(1)).await;
        assert!(!listener.is_closed());
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_held_stream_is_not_waited_for_longer_than_asked() {
    in_time(async {
        let database = TestDatabase::create().await;
        let pooler = database.pooler().await;
        let options = EventStore::options().lock_timeout(Duration::from_millis(300));
        let store = options.transaction_pooler().connect(&pooler.url()).await.unwrap();
        store.append(one(stream("held"), 0)).await.unwrap();
        let other = database.client().await;
        other.batch_execute("begin; select from annals.streams for update").await.unwrap();
        let error = store.append(one(stream("held"), 1)).await.unwrap_err();
        assert!(matches!(error, Error::Locked { .. }), "{error:?}");
        other.batch_execute("rollback").await.unwrap();
        eventually("the store appends again", async || {
            store.append(one(stream("held"), 2)).await.is_ok()
        })
        .await;
    })
    .await;
}
