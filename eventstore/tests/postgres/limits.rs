//! What holds when the database is slow, blocked, or asked for more than it can do.

use std::time::{Duration, Instant};

use annals_eventstore::{Append, Error, EventStore, ExpectedVersion, Version, postgres::Use};
use futures::future::join_all;
use tokio_postgres::Client;

use crate::support::{
    TestDatabase, counter::Counter, event, eventually, history, in_time, is_waiting, json, log,
    number, one, patient, stream,
};

/// Longer than anything here takes, and shorter than a test may hang.
const LONG: Duration = Duration::from_secs(100);

/// Holds a stream's row in a transaction of another program.
async fn hold(client: &Client, key: &str) {
    client.batch_execute("begin").await.unwrap();
    let sql = "select from annals.streams where category = 'thing' and key = $1 for update";
    assert_eq!(client.query(sql, &[&key]).await.unwrap().len(), 1, "there is such a stream");
}

/// Holds whatever an append needs.
async fn hold_all(client: &Client) {
    client.batch_execute("begin; lock table annals.streams in exclusive mode").await.unwrap();
}

async fn let_go(client: &Client) {
    client.batch_execute("rollback").await.unwrap();
}

/// Until the server has something that waits for a lock.
async fn until_blocked(watcher: &Client) {
    eventually("an append waits for a lock", async || {
        let sql = "select count(*) from pg_stat_activity
            where datname = current_database() and wait_event_type = 'Lock'";
        watcher.query_one(sql, &[]).await.unwrap().get::<_, i64>(0) > 0
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_that_another_holds_holds_up_no_other() {
    in_time(async {
        let database = TestDatabase::create().await;
        let options = EventStore::options().lock_timeout(Duration::from_secs(1));
        let store = database.store_with(options.append_timeout(LONG)).await;
        store.append(one(stream("held"), 0)).await.unwrap();
        let other = database.client().await;
        hold(&other, "held").await;

        // Several times in each batch's way.
        let held = (1..=4).map(|number| store.append(one(stream("held"), number)));
        let others = (0..400).map(|number| {
            let store = store.clone();
            async move {
                for round in 0..3 {
                    let append = one(stream(format!("free-{number}")), round);
                    store.append(append).await.unwrap();
                }
            }
        });
        let (failed, _) = tokio::join!(join_all(held), join_all(others));
        for failure in failed {
            let error = failure.expect_err("the stream is held");
            assert!(error.is_retryable(), "{error:?}");
            let Error::Locked { streams, .. } = error else { panic!("{error:?}") };
            assert_eq!(streams, [stream("held")]);
        }
        // An append of two streams, one of them held, is not there in part.
        let both = Append::to(stream("held"), ExpectedVersion::Any, [event(7)]).and(
            stream("free-0"),
            ExpectedVersion::Any,
            [event(7)],
        );
        assert!(matches!(store.append(both).await, Err(Error::Locked { .. })));

        let_go(&other).await;
        store.append(one(stream("held"), 5)).await.unwrap();
        let numbers: Vec<_> = history(&store, &stream("held")).await.iter().map(number).collect();
        assert_eq!(numbers, [0, 5], "what was refused is not there");
        assert_eq!(log(&store).await.len(), 2 + 400 * 3);
    })
    .await;
}

/// A stream that does not exist yet is held by who is about to create it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_that_another_creates_is_waited_for() {
    let database = TestDatabase::create().await;
    let options = EventStore::options().lock_timeout(Duration::from_secs(1));
    let store = database.store_with(options).await;
    let other = database.client().await;
    let create =
        "begin; insert into annals.streams (category, key, version) values ('thing', 'new', 0)";
    other.batch_execute(create).await.unwrap();
    let error = store.append(one(stream("new"), 1)).await.unwrap_err();
    assert!(matches!(error, Error::Locked { .. }), "{error:?}");
    let appending = tokio::spawn({
        let store = store.clone();
        async move { store.append(one(stream("new"), 2)).await }
    });
    until_blocked(&database.client().await).await;
    let_go(&other).await;
    appending.await.unwrap().unwrap();
    assert_eq!(history(&store, &stream("new")).await.len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_append_that_was_not_sent_in_time_is_not_recorded() {
    in_time(async {
        let database = TestDatabase::create().await;
        let timeout = Duration::from_secs(2);
        let options = EventStore::options().writers(1).append_timeout(timeout).lock_timeout(LONG);
        let store = database.store_with(options).await;
        let other = database.client().await;
        let watcher = database.client().await;
        hold_all(&other).await;
        // The first goes to the lane in the end; the second finds its lane taken and waits its time.
        let first = tokio::spawn({
            let store = store.clone();
            async move { store.append(one(stream("first"), 1)).await }
        });
        until_blocked(&watcher).await;
        let started = Instant::now();
        let waiting = join_all((0..50).map(|n| store.append(one(stream(n), n)))).await;
        assert!(started.elapsed() >= timeout);
        // Nobody knows of those that were on their way, and each that says so is right.
        let mut unsent = 0;
        for outcome in &waiting {
            match outcome {
                Err(error @ Error::TimedOut { waited, .. }) => {
                    assert!(error.is_retryable() && *waited == timeout, "{error:?}");
                    unsent += 1;
                }
                Err(Error::Indeterminate { .. }) => {}
                Err(Error::Database { retryable: true, .. }) => {}
                other => panic!("{other:?}"),
            }
        }
        assert!(unsent > 0, "{waiting:?}");
        first.await.unwrap().unwrap_err();
        let_go(&other).await;
        eventually("the store works again", async || {
            store.append(one(stream("after"), 0)).await.is_ok()
        })
        .await;
        let recorded = log(&store).await;
        for (n, outcome) in waiting.iter().enumerate() {
            if matches!(outcome, Err(Error::TimedOut { .. } | Error::Database { .. })) {
                assert!(!recorded.iter().any(|event| event.stream == stream(n)), "{n} is recorded");
            }
        }
    })
    .await;
}

/// Each append ends in one of these ways.
#[derive(Default, Debug)]
struct Outcomes {
    recorded: usize,
    overloaded: usize,
    not_recorded: usize,
    unknown: usize,
}

impl Outcomes {
    /// Counts, and holds each outcome against the log.
    async fn of(store: &EventStore, outcomes: &[(String, Result<(), Error>)]) -> Self {
        let mut count = Self::default();
        let recorded: std::collections::HashSet<_> =
            log(store).await.into_iter().map(|event| event.stream).collect();
        for (key, outcome) in outcomes {
            let is_there = recorded.contains(&stream(key));
            match outcome {
                Ok(()) => {
                    assert!(is_there, "{key} is lost");
                    count.recorded += 1;
                }
                Err(Error::Indeterminate { .. }) => count.unknown += 1,
                Err(error) => {
                    assert!(!is_there, "{key} is recorded, and was reported as {error:?}");
                    match error {
                        Error::Overloaded { .. } => count.overloaded += 1,
                        _ => count.not_recorded += 1,
                    }
                }
            }
        }
        count
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flood_is_refused_beyond_what_the_queue_holds() {
    in_time(async {
        let database = TestDatabase::create().await;
        let options = EventStore::options().queue_appends(100).queue_timeout(Duration::ZERO);
        let store = database.store_with(options.append_timeout(LONG).lock_timeout(LONG)).await;
        let other = database.client().await;
        hold_all(&other).await;
        let flood: Vec<_> = (0..1000)
            .map(|n| {
                let store = store.clone();
                tokio::spawn(async move {
                    let key = format!("flood-{n}");
                    let outcome = store.append(one(stream(&key), n)).await.map(drop);
                    (key, outcome)
                })
            })
            .collect();
        // All but what the queue holds come back while the database is blocked.
        eventually("the rest is refused", async || {
            flood.iter().filter(|task| task.is_finished()).count() == 900
        })
        .await;
        let_go(&other).await;
        let outcomes: Vec<_> = join_all(flood).await.into_iter().map(Result::unwrap).collect();
        for (_, outcome) in &outcomes {
            if let Err(Error::Overloaded { appends, bytes, waited }) = outcome {
                assert_eq!((*appends, *waited), (100, Duration::ZERO));
                assert!(*bytes > 0);
            }
        }
        let count = Outcomes::of(&store, &outcomes).await;
        assert_eq!((count.recorded, count.overloaded), (100, 900), "{count:?}");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_queue_is_bounded_in_bytes_too() {
    in_time(async {
        let database = TestDatabase::create().await;
        let options = EventStore::options().queue_bytes(400_000).queue_timeout(Duration::ZERO);
        let store = database.store_with(options.append_timeout(LONG).lock_timeout(LONG)).await;
        let other = database.client().await;
        hold_all(&other).await;
        let large = |n: usize| {
            let text = "x".repeat(100_000);
            Append::to(stream(n), ExpectedVersion::Any, [json(&format!(r#"{{"x":"{text}"}}"#))])
        };
        let tasks: Vec<_> = (0..10)
            .map(|n| {
                let (store, append) = (store.clone(), large(n));
                tokio::spawn(async move { (n.to_string(), store.append(append).await.map(drop)) })
            })
            .collect();
        eventually("the rest is refused", async || {
            tasks.iter().filter(|task| task.is_finished()).count() == 7
        })
        .await;
        let_go(&other).await;
        let outcomes: Vec<_> = join_all(tasks).await.into_iter().map(Result::unwrap).collect();
        let count = Outcomes::of(&store, &outcomes).await;
        assert_eq!((count.recorded, count.overloaded), (3, 7), "{count:?}");
        // One that is larger than all the room there is goes alone.
        let text = "x".repeat(600_000);
        let append = json(&format!(r#"{{"x":"{text}"}}"#));
        store.append(Append::to(stream("huge"), ExpectedVersion::Any, [append])).await.unwrap();
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_caller_waits_for_a_place_as_long_as_it_may() {
    in_time(async {
        let database = TestDatabase::create().await;
        let options = EventStore::options().queue_appends(1).queue_timeout(LONG);
        let store = database.store_with(options.append_timeout(LONG).lock_timeout(LONG)).await;
        let appends = join_all((0..50).map(|n| store.append(one(stream(n), n)))).await;
        assert!(appends.iter().all(Result::is_ok), "{appends:?}");
    })
    .await;
}

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

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_be_read_is_not_worth_another_try() {
    let database = TestDatabase::create().await;
    let store = database.store().await;
    store.append(one(stream("a"), 1)).await.unwrap();
    let client = database.client().await;
    let spoil = "alter table annals.events disable trigger all;
        update annals.events set metadata = '[1]'";
    client.batch_execute(spoil).await.unwrap();
    let mut events = std::pin::pin!(store.read_stream(&stream("a"), Version::NONE));
    let error = futures::TryStreamExt::try_next(&mut events).await.unwrap_err();
    assert!(!error.is_retryable(), "{error:?}");
}

/// Of programs whose clocks are the same, each append comes through, however often others come first.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn programs_with_clocks_of_their_own_all_come_through() {
    struct System;
    impl annals_eventstore::TimeSource for System {
        fn now(&self) -> chrono::DateTime<chrono::Utc> {
            chrono::Utc::now()
        }
    }
    in_time(async {
        let database = TestDatabase::create().await;
        let clock = || annals_eventstore::Clock::supplied(System);
        let options = || patient(EventStore::options().clock(clock()));
        let stores = join_all((0..6).map(|_| database.store_with(options().writers(4)))).await;
        let appends = stores.iter().enumerate().flat_map(|(n, store)| {
            (0..20).map(move |m| store.append(one(stream(format!("{n}-{m}")), m)))
        });
        for appended in join_all(appends).await {
            appended.unwrap();
        }
        crate::support::assert_sound(&log(&stores[0]).await);
    })
    .await;
}
