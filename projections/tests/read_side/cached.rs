//! Answers from a cache are never older than was asked for, whoever commits, rebuilds or resets.

use std::{
    sync::Mutex,
    time::{Duration, Instant},
};

use annals_eventstore::{AsOf, EventStore, Position};
use annals_projections::{
    Consistency, InlineProjections, ProjectionError, QueryCache, QueryCacheOptions,
    QueryReadModels, Rebuild, control, forget_history, reset,
};
use tokio_postgres::types::ToSql;

use crate::{
    failures::{LaterTally, transfuse},
    paused::WorkerProcess,
    support::{
        PATIENCE, Running, catch_up,
        database::TestDatabase,
        eventually,
        ledger::{Add, Tally, add},
        worker,
    },
};

fn cache(store: &EventStore, max_age: Duration) -> QueryCache {
    QueryCache::with(store, QueryCacheOptions::default().max_age(max_age)).unwrap()
}

/// That looks before each answer.
fn exact(store: &EventStore) -> QueryCache {
    cache(store, Duration::ZERO)
}

async fn total(store: &impl QueryReadModels, ledger: &str) -> i64 {
    let row = store.query::<Tally>().get(&ledger.to_owned()).await.unwrap();
    row.map_or(0, |row| row.total)
}

/// How often it had the answer, and how often not.
fn counted(cache: &QueryCache) -> (u64, u64) {
    let statistics = cache.statistics();
    (statistics.hits, statistics.misses)
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_answered_is_answered_again_until_another_process_commits() {
    let database = TestDatabase::create().await;
    let (store, client) = (database.store().await, database.client().await);
    let _worker = WorkerProcess::start(&database, 60_000);
    let first = add(&store, "a", 1).await.last_position;
    store.query::<Tally>().wait_for(first, PATIENCE).await.unwrap();
    let cache = exact(&store);
    assert_eq!(total(&cache, "a").await, 1);
    // By hand, past the checkpoint: only who asks the table sees it.
    client.batch_execute("update tallies set total = 100").await.unwrap();
    assert_eq!(total(&cache, "a").await, 1);
    assert_eq!(cache.query::<Tally>().count().await.unwrap(), 1);
    assert_eq!(cache.query::<Tally>().count().await.unwrap(), 1);
    assert_eq!(counted(&cache), (2, 2));

    let second = add(&store, "b", 5).await.last_position;
    store.query::<Tally>().wait_for(second, PATIENCE).await.unwrap();
    assert_eq!((total(&cache, "a").await, total(&cache, "b").await), (100, 5));
    assert_eq!(cache.query::<Tally>().count().await.unwrap(), 2);
    assert_eq!(cache.query::<Tally>().all().await.unwrap().len(), 2);
    assert_eq!(counted(&cache), (2, 6));
}

/// What somebody saw in the table at one time, a cache answers from a while later on.
#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_older_than_allowed_under_concurrent_writes() {
    let database = TestDatabase::create().await;
    let store = database.store().await;
    add(&store, "a", 1).await;
    let _worker = WorkerProcess::start(&database, 60_000);
    store.query::<Tally>().wait_for(Position::new(1), PATIENCE).await.unwrap();
    for max_age in [Duration::ZERO, Duration::from_millis(40)] {
        let cache = cache(&store, max_age);
        let until = Instant::now() + Duration::from_secs(3);
        // Until it was of use, too.
        let goes_on = || {
            let ((hits, misses), now) = (counted(&cache), Instant::now());
            now < until || hits <= misses && now < until + PATIENCE / 2
        };
        // When the table was known to have come to which total.
        let seen = Mutex::new(vec![(Instant::now(), total(&store, "a").await)]);
        let writing = async {
            while goes_on() {
                let ledger = "a".to_owned();
                let done = store.execute(Add { ledger: ledger.clone(), amount: 1 }).await.unwrap();
                // Read your own writes.
                let fresh = Consistency::AtLeast(done.position, PATIENCE);
                let query = cache.query::<Tally>().consistency(fresh);
                let row = query.get(&ledger).await.unwrap().unwrap();
                assert!(row.trail != 0 && row.total >= done.version.get(), "{row:?} {done:?}");
                tokio::time::sleep(Duration::from_millis(15)).await;
            }
        };
        let watching = async {
            while goes_on() {
                let total = total(&store, "a").await;
                seen.lock().unwrap().push((Instant::now(), total));
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        let reading = async {
            let mut last = 0;
            while goes_on() {
                let asked = Instant::now();
                let known = {
                    let seen = seen.lock().unwrap();
                    let known = seen.iter().rev().find(|(at, _)| *at + max_age <= asked);
                    known.map_or(0, |(_, total)| *total)
                };
                let answer = total(&cache, "a").await;
                assert!(answer >= known, "{answer} where {known} was known, {max_age:?} ago");
                assert!(answer >= last, "it went back from {last} to {answer}");
                last = answer;
                tokio::task::yield_now().await;
            }
        };
        tokio::join!(writing, watching, reading);
        let (hits, misses) = counted(&cache);
        println!("{max_age:?}: {hits} hits, {misses} misses");
        assert!(hits > misses, "it is of use: {hits} hits, {misses} misses");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn at_least_waits_and_is_never_older() {
    let database = TestDatabase::create().await;
    let store = database.store().await;
    add(&store, "a", 1).await;
    catch_up::<Tally>(&store).await;
    // What it has seen would be good for an hour.
    let cache = cache(&store, Duration::from_secs(3600));
    assert_eq!(total(&cache, "a").await, 1);
    let second = add(&store, "a", 1).await.last_position;
    let fresh = |timeout| {
        let query = cache.query::<Tally>().consistency(Consistency::AtLeast(second, timeout));
        async move { query.get(&"a".to_owned()).await }
    };
    let early = fresh(Duration::from_millis(20)).await;
    assert!(matches!(early, Err(ProjectionError::TimedOut { .. })), "{early:?}");
    catch_up::<Tally>(&store).await;
    assert_eq!(fresh(Duration::ZERO).await.unwrap().unwrap().total, 2);
    assert_eq!(fresh(Duration::ZERO).await.unwrap().unwrap().total, 2);
    let (hits, misses) = counted(&cache);
    assert_eq!((hits, misses), (1, 2));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_swap_a_rollback_and_a_reset_leave_nothing_behind() {
    let database = TestDatabase::create().await;
    let (store, client) = (database.store().await, database.client().await);
    let cache = exact(&store);
    let error = cache.query::<Tally>().count().await.unwrap_err();
    assert!(matches!(error, ProjectionError::NotBuilt { .. }), "{error:?}");
    add(&store, "a", 1).await;
    catch_up::<Tally>(&store).await;
    // By this the old table is known.
    client.batch_execute("update tallies set total = 100").await.unwrap();
    let then = async || {
        let at = AsOf::Position(Position::new(1));
        let row = cache.query::<Tally>().as_of(at).get(&"a".to_owned()).await;
        row.unwrap().unwrap().total
    };
    assert_eq!((total(&cache, "a").await, then().await), (100, 100));
    let rebuild = Rebuild::<Tally>::of(&store);
    rebuild.build().await.unwrap();
    assert_eq!((total(&cache, "a").await, then().await), (100, 100), "nothing has changed yet");
    rebuild.swap().await.unwrap();
    assert_eq!((total(&cache, "a").await, then().await), (1, 1));
    rebuild.rollback().await.unwrap();
    assert_eq!((total(&cache, "a").await, then().await), (100, 100));
    rebuild.rollback().await.unwrap();
    assert_eq!((total(&cache, "a").await, then().await), (1, 1));
    reset::<Tally>(&store).await.unwrap();
    let error = cache.query::<Tally>().get(&"a".to_owned()).await.unwrap_err();
    assert!(matches!(error, ProjectionError::NotBuilt { .. }), "{error:?}");
    catch_up::<Tally>(&store).await;
    assert_eq!((total(&cache, "a").await, then().await), (1, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_is_kept_whatever_comes_until_it_is_forgotten() {
    let database = TestDatabase::create().await;
    let store = database.store().await;
    add(&store, "a", 1).await;
    let cache = exact(&store);
    let then = |position| {
        let query = cache.query::<Tally>().as_of(AsOf::Position(Position::new(position)));
        async move { query.all().await }
    };
    let error = then(1).await.unwrap_err();
    assert!(matches!(error, ProjectionError::NotBuilt { .. }), "{error:?}");
    catch_up::<Tally>(&store).await;
    assert_eq!(then(1).await.unwrap()[0].total, 1);
    for round in 1..=5 {
        let error = then(round + 1).await.unwrap_err();
        assert!(matches!(error, ProjectionError::NotReached { .. }), "{error:?}");
        add(&store, "a", 1).await;
        catch_up::<Tally>(&store).await;
        assert_eq!(then(1).await.unwrap()[0].total, 1);
        assert_eq!(counted(&cache), (round as u64, 1));
    }
    assert_eq!(then(4).await.unwrap()[0].total, 4);
    forget_history::<Tally>(&store, AsOf::Position(Position::new(3))).await.unwrap();
    let error = then(1).await.unwrap_err();
    assert!(matches!(error, ProjectionError::Forgotten { .. }), "{error:?}");
    assert_eq!(then(4).await.unwrap()[0].total, 4);
}

/// Rows change then while the checkpoint stays where it is.
#[tokio::test(flavor = "multi_thread")]
async fn what_was_parked_and_comes_late_is_seen() {
    let database = TestDatabase::create().await;
    let store = database.store().await;
    add(&store, "b", 1).await;
    transfuse(&store, "b", 70).await;
    catch_up::<Tally>(&store).await;
    let mut running = Running::start(worker::<LaterTally>(&store));
    add(&store, "a", 1).await;
    running.caught_up::<LaterTally>(&store).await;
    let cache = exact(&store);
    let total = async || {
        let row = cache.query::<LaterTally>().get(&"b".to_owned()).await.unwrap();
        row.unwrap().total
    };
    let stands = async || store.query::<LaterTally>().reached().await.unwrap();
    let (before, at) = (total().await, stands().await);
    assert_eq!((before, total().await), (1, 1));
    assert_eq!(counted(&cache), (1, 1));
    assert_eq!(control::retry(&store, "tallies", None).await.unwrap(), 1);
    eventually("it is applied", || async {
        control::parked(&store, None).await.unwrap().is_empty()
    })
    .await;
    assert_eq!((total().await, stands().await), (71, at));
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn of_those_who_ask_the_same_at_the_same_time_one_asks_the_database() {
    let database = TestDatabase::create().await;
    let store = database.store().await;
    add(&store, "a", 1).await;
    catch_up::<Tally>(&store).await;
    let cache = cache(&store, PATIENCE);
    let asking = (0..50).map(|_| {
        let query = cache.query::<Tally>().filter("(select true from pg_sleep(1))", &[]);
        async move { query.all().await.unwrap().len() }
    });
    let answers = futures::future::join_all(asking).await;
    assert!(answers.iter().all(|rows| *rows == 1), "{answers:?}");
    assert_eq!(counted(&cache), (49, 1));
    // A failure is everybody's own, and nothing of it stays.
    let asking = (0..5).map(|_| {
        let query = cache.query::<Tally>().filter("total / 0 = 1", &[]);
        async move { query.all().await }
    });
    let answers = futures::future::join_all(asking).await;
    assert!(answers.iter().all(Result::is_err), "{answers:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn parameters_order_and_limits_tell_questions_apart() {
    let database = TestDatabase::create().await;
    let store = database.store().await;
    for (ledger, amount) in [("a", 1), ("b", 2), ("c", 3)] {
        add(&store, ledger, amount).await;
    }
    catch_up::<Tally>(&store).await;
    let cache = exact(&store);
    for _ in 0..2 {
        for least in 1..=4_i64 {
            let params: [&(dyn ToSql + Sync); 1] = [&least];
            let query = || cache.query::<Tally>().filter("total >= $1", &params);
            let expected = (4 - least) as u64;
            assert_eq!(query().count().await.unwrap(), expected);
            assert_eq!(query().all().await.unwrap().len() as u64, expected);
            assert_eq!(query().limit(1).count().await.unwrap(), expected.min(1));
        }
        for order in ["total", "total desc"] {
            let rows = cache.query::<Tally>().order_by(order).all().await.unwrap();
            let totals: Vec<_> = rows.iter().map(|row| row.total).collect();
            assert_eq!(totals, if order == "total" { [1, 2, 3] } else { [3, 2, 1] });
        }
        let two = cache.query::<Tally>().matching("ledger", "b").unwrap().all().await.unwrap();
        assert_eq!(two[0].total, 2);
        let after = cache.query::<Tally>().after("b").unwrap().all().await.unwrap();
        assert_eq!(after[0].total, 3);
        assert_eq!((total(&cache, "a").await, total(&cache, "c").await), (1, 3));
        assert_eq!(total(&cache, "no such ledger").await, 0);
    }
    let (hits, misses) = counted(&cache);
    assert_eq!((hits, misses), (19, 19));
}

#[tokio::test(flavor = "multi_thread")]
async fn it_holds_no_more_bytes_than_it_may() {
    let database = TestDatabase::create().await;
    let store = database.store().await;
    add(&store, "a", 1).await;
    catch_up::<Tally>(&store).await;
    let most = 50_000;
    let options = QueryCacheOptions::default().max_age(PATIENCE).max_bytes(most);
    let cache = QueryCache::with(&store, options).unwrap();
    for number in 0..400_i64 {
        cache.query::<Tally>().filter("total <> $1", &[&-number]).all().await.unwrap();
    }
    assert!(cache.statistics().bytes > 0);
    eventually("what is too much is gone", || async {
        // What goes does so when the cache is used.
        total(&cache, "a").await;
        cache.statistics().bytes <= most
    })
    .await;
    // What was used last is there.
    let (hits, misses) = counted(&cache);
    cache.query::<Tally>().filter("total <> $1", &[&-399_i64]).all().await.unwrap();
    assert_eq!(counted(&cache), (hits + 1, misses));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_inline_is_not_kept_and_strong_asks_the_database() {
    let database = TestDatabase::create().await;
    let store = database.store().await.with_inline::<Tally>().await.unwrap();
    let cache = cache(&store, Duration::from_secs(3600));
    for amount in 1..=5 {
        add(&store, "a", 1).await;
        assert_eq!(total(&cache, "a").await, amount);
        let strong = cache.query::<Tally>().consistency(Consistency::Strong);
        assert_eq!(strong.get(&"a".to_owned()).await.unwrap().unwrap().total, amount);
    }
    assert_eq!(counted(&cache), (0, 0));
    let memory = QueryCache::new(&EventStore::in_memory());
    assert!(memory.is_err());
}
