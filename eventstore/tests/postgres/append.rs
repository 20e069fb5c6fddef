//! Appends that the database itself refuses, and appends of several programs.

use annals_eventstore::{Append, Error, EventStore, ExpectedVersion, Position, Version};
use chrono::{DateTime, Utc};
use futures::future::join_all;

use crate::support::{
    TestDatabase, assert_sound,
    counter::{Change, Counter, load},
    direct, event, eventually, in_time, log, numbers, one, stream,
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_append_that_the_database_refuses_fails_alone() {
    let database = TestDatabase::create().await;
    let store = database.store().await;
    // PostgreSQL's calendar begins in 4714 BC, chrono's long before.
    let before_time = |number| event(number).occurred_at(DateTime::<Utc>::MIN_UTC);
    let appends = (0..300).map(|number| {
        let store = store.clone();
        tokio::spawn(async move {
            let event = if number % 50 == 7 { before_time(number) } else { event(number) };
            let append = Append::to(stream(number % 9), ExpectedVersion::Any, [event]);
            let key = format!("key {number}");
            store.append(append.idempotency_key(key)).await
        })
    });
    let outcomes = in_time(join_all(appends)).await;
    let mut good = Vec::new();
    for (number, outcome) in (0..).zip(outcomes) {
        match outcome.unwrap() {
            Ok(appended) => {
                assert_ne!(number % 50, 7);
                good.push((appended.first_position, number));
            }
            Err(error) => {
                assert_eq!(number % 50, 7, "{error}");
                assert!(matches!(error, Error::Database { retryable: false, .. }), "{error:?}");
            }
        }
    }
    good.sort_unstable();
    let log = log(&store).await;
    assert_sound(&log);
    let recorded: Vec<_> = log.iter().map(|e| e.position).zip(numbers(&log)).collect();
    assert_eq!(recorded, good, "each is where it was said to be");
    // A refused append leaves its key free.
    let append = one(stream(7), 7).idempotency_key("key 7");
    assert!(!store.append(append).await.unwrap().replayed);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_programs_that_expect_the_same_version_one_wins() {
    let database = TestDatabase::create().await;
    let stores = join_all((0..4).map(|_| database.store())).await;
    for round in 0..40 {
        let expected = ExpectedVersion::Exact(Version::new(round));
        // Two streams, named in turn in one order and the other.
        let writes = (0..).zip(&stores).map(|(number, store)| {
            let (a, b) = if number % 2 == 0 { ("a", "b") } else { ("b", "a") };
            let append = Append::to(stream(a), expected, [event(number)]);
            store.append(append.and(stream(b), expected, [event(number)]))
        });
        let outcomes = in_time(join_all(writes)).await;
        let won: Vec<_> = outcomes.iter().filter(|outcome| outcome.is_ok()).collect();
        assert_eq!(won.len(), 1, "in round {round}: {outcomes:?}");
        for conflict in outcomes.iter().filter_map(|outcome| outcome.as_ref().err()) {
            let Error::Conflict { actual, .. } = conflict else { panic!("{conflict}") };
            assert_eq!(actual.get(), round + 1);
        }
    }
    let log = log(&stores[0]).await;
    assert_eq!(log.len(), 80);
    assert_sound(&log);
    // A loser draws no position.
    assert_eq!(log.last().unwrap().position, Position::new(80));
}

/// A deadlock would be resolved by the database and the append sent again, after a second for each:
/// it must not come to that.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn programs_that_name_streams_in_opposite_orders_do_not_deadlock() {
    let database = TestDatabase::create().await;
    let stores = join_all((0..4).map(|_| database.store())).await;
    let tasks = (0..).zip(&stores).map(|(number, store)| {
        let store = store.clone();
        tokio::spawn(async move {
            for round in 0..60 {
                // Some exist and some do not.
                let mut keys = [0, 1, round, round + 1].map(|key| format!("{key:03}"));
                keys[2..].iter_mut().for_each(|key| key.push_str(" new"));
                keys.rotate_left(number);
                if number % 2 == 0 {
                    keys.reverse();
                }
                let [first, others @ ..] = keys;
                let append = others.into_iter().fold(one(stream(first), 1), |append, key| {
                    append.and(stream(key), ExpectedVersion::Any, [event(1)])
                });
                store.append(append).await.unwrap();
            }
        })
    });
    in_time(join_all(tasks)).await.into_iter().for_each(Result::unwrap);
    assert_eq!(log(&stores[0]).await.len(), 4 * 60 * 4);
    drop(stores);
    // A backend that ends leaves its numbers behind.
    let client = database.client().await;
    eventually("the store's backends end", async || {
        let sql = "select count(*) from pg_stat_activity
            where application_name = 'annals' and datname = current_database()";
        client.query_one(sql, &[]).await.unwrap().get::<_, i64>(0) == 0
    })
    .await;
    let sql = "select deadlocks from pg_stat_database where datname = current_database()";
    assert_eq!(client.query_one(sql, &[]).await.unwrap().get::<_, i64>(0), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn programs_that_contend_for_a_counter_count_right() {
    let database = TestDatabase::create().await;
    let stores = join_all((0..4).map(|_| database.store())).await;
    let tasks = (0..16).map(|task| {
        let store = stores[task % 4].clone();
        tokio::spawn(async move {
            for round in 0..10 {
                let command = annals_eventstore::Envelope::new(Change::new("a", [1]))
                    .idempotency_key(format!("{task} {round}"));
                while let Err(error) = store.execute(command.clone()).await {
                    assert!(error.to_string().contains("the append expected"), "{error}");
                }
            }
        })
    });
    in_time(join_all(tasks)).await.into_iter().for_each(Result::unwrap);
    assert_eq!(load(&stores[0], "a").await.state, Counter { total: 160, changes: 160 });
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_programs_that_bring_the_same_key_one_records_it() {
    let database = TestDatabase::create().await;
    let stores = join_all((0..4).map(|_| database.store())).await;
    for round in 0..20 {
        let writes = stores.iter().map(|store: &EventStore| {
            let append =
                one(stream("a"), round).and(stream("b"), ExpectedVersion::Any, [event(round)]);
            store.append(append.idempotency_key(format!("key {round}")))
        });
        let outcomes = in_time(join_all(writes)).await;
        let outcomes: Vec<_> = outcomes.into_iter().map(Result::unwrap).collect();
        assert_eq!(outcomes.iter().filter(|appended| !appended.replayed).count(), 1);
        assert!(outcomes.iter().all(|appended| appended.versions == outcomes[0].versions));
    }
    // To different streams, where nothing but the key stands between them.
    for round in 20..40 {
        let writes = (0..).zip(&stores).map(|(number, store)| {
            store.append(one(stream(number), round).idempotency_key(format!("key {round}")))
        });
        let outcomes = in_time(join_all(writes)).await;
        assert_eq!(outcomes.iter().filter(|outcome| outcome.is_ok()).count(), 1, "{outcomes:?}");
        for refused in outcomes.iter().filter_map(|outcome| outcome.as_ref().err()) {
            assert!(matches!(refused, Error::KeyReused { .. }), "{refused:?}");
        }
    }
    let log = log(&stores[0]).await;
    assert_sound(&log);
    assert_eq!(log.len(), 20 * 2 + 20);
}

/// A loser must not stand in the readers' way while it waits, and must not leave a hole.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_append_that_waits_for_its_stream_is_not_in_flight() {
    let database = TestDatabase::create().await;
    let store = database.store().await;
    let mut client = database.client().await;
    let watcher = database.client().await;
    let first = client.transaction().await.unwrap();
    direct::append(&first, "a", &direct::ids(1)).await.unwrap();
    let waiting = tokio::spawn({
        let store = store.clone();
        async move { store.append(Append::to(stream("a"), ExpectedVersion::NoStream, [event(1)])).await }
    });
    eventually("the second append waits for the first", async || {
        let sql = "select count(*) from pg_stat_activity
            where application_name = 'annals' and wait_event_type = 'Lock'
              and datname = current_database()";
        watcher.query_one(sql, &[]).await.unwrap().get::<_, i64>(0) == 1
    })
    .await;
    assert_eq!(direct::registered(&watcher).await, 1);
    first.commit().await.unwrap();
    assert!(matches!(waiting.await.unwrap(), Err(Error::Conflict { .. })));
    let next = store.append(one(stream("b"), 2)).await.unwrap();
    assert_eq!(next.first_position, Position::new(2), "the loser drew a position");
}

/// Whatever the database's settings say of transactions.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn appends_go_through_in_a_database_of_stricter_isolation() {
    let database = TestDatabase::create().await;
    let strict = "alter database {} set default_transaction_isolation = 'serializable'";
    let client = database.client().await;
    let name: String = client.query_one("select current_database()", &[]).await.unwrap().get(0);
    client.batch_execute(&strict.replace("{}", &name)).await.unwrap();
    let stores = join_all((0..4).map(|_| database.store())).await;
    let tasks = (0..16).map(|task| {
        let store = stores[task % 4].clone();
        tokio::spawn(async move {
            for round in 0..20 {
                let append = one(stream(round % 2), round).and(
                    stream(format!("own {task}")),
                    ExpectedVersion::Any,
                    [event(round)],
                );
                store.append(append).await.unwrap();
            }
        })
    });
    in_time(join_all(tasks)).await.into_iter().for_each(Result::unwrap);
    let log = log(&stores[0]).await;
    assert_sound(&log);
    assert_eq!(log.len(), 16 * 20 * 2);
}
