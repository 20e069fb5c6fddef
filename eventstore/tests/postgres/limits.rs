//! What holds when the database is slow, blocked, or asked for more than it can do.

use std::time::{Duration, Instant};

use annals_eventstore::{Append, Error, EventStore, ExpectedVersion, Version};
use futures::future::join_all;
use tokio_postgres::Client;

use crate::support::{
    TestDatabase, event, eventually, history, in_time, json, log, number, one, patient, stream,
};

/// Longer than anything here takes, and shorter than a test may hang.
pub(crate) const LONG: Duration = Duration::from_secs(100);

/// Holds a stream's row in a transaction of another program.
async fn hold(client: &Client, key: &str) {
    client.batch_execute("begin").await.unwrap();
    let sql = "select from annals.streams where category = 'thing' and key = $1 for update";
    assert_eq!(client.query(sql, &[&key]).await.unwrap().len(), 1, "there is such a stream");
}

/// Holds whatever an append needs.
pub(crate) async fn hold_all(client: &Client) {
    client.batch_execute("begin; lock table annals.streams in exclusive mode").await.unwrap();
}

pub(crate) async fn let_go(client: &Client) {
    client.batch_execute("rollback").await.unwrap();
}

/// Until the server has something that waits for a lock.
pub(crate) async fn until_blocked(watcher: &Client) {
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
    let options = EventStore::options().lock_timeout(Duration::from_secs(5));
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
        let timeout = Duration::from_secs(8);
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
pub(crate) struct Outcomes {
    pub(crate) recorded: usize,
    pub(crate) overloaded: usize,
    pub(crate) not_recorded: usize,
    pub(crate) unknown: usize,
}

impl Outcomes {
    /// Counts, and holds each outcome against the log.
    pub(crate) async fn of(store: &EventStore, outcomes: &[(String, Result<(), Error>)]) -> Self {
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
