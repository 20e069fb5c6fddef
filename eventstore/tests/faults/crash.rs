//! The server is killed with `kill -9`, and comes back.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use annals_eventstore::{Append, Appended, Envelope, Error, EventStore, ExpectedVersion, Position};
use futures::future::join_all;
use tokio::task::JoinHandle;

use crate::{
    follower::Follower,
    kill_all,
    support::{
        TestDatabase, assert_sound,
        counter::Change,
        direct, event, eventually, in_time, log, one,
        outcomes::{Outcomes, halves},
        server::PrivateServer,
        stream,
    },
};

/// Retries an append with a key until it is acknowledged.
async fn settle(store: &EventStore, append: Append) -> Appended {
    loop {
        match store.append(append.clone()).await {
            Ok(appended) => return appended,
            Err(error) => assert!(error.is_retryable(), "{error:?}"),
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Appends until told to stop. Even tasks use keys and retry until each append is settled; odd ones take
/// what comes. Returns the number in each append's events, and its outcome.
fn writer(
    store: &EventStore,
    task: i64,
    stop: &Arc<AtomicBool>,
) -> JoinHandle<Vec<(i64, Result<Appended, Error>)>> {
    let (store, stop) = (store.clone(), Arc::clone(stop));
    tokio::spawn(async move {
        let mut outcomes = Vec::new();
        for round in 0.. {
            if stop.load(Ordering::Relaxed) {
                break;
            }
            let number = task * 1_000_000 + round;
            let append = halves(number % 7, task, number);
            let outcome = if task % 2 == 0 {
                Ok(settle(&store, append.idempotency_key(number.to_string())).await)
            } else {
                store.append(append).await
            };
            if outcome.is_err() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            outcomes.push((number, outcome));
        }
        outcomes
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_killed_under_load_keeps_what_it_acknowledged() {
    let mut server = PrivateServer::start(&[]).await;
    let database = TestDatabase::create_on(server.config()).await;
    let store = database.store().await;
    let stop = Arc::new(AtomicBool::new(false));
    let follower = Follower::start(store.clone());
    let writers: Vec<_> = (0..16).map(|task| writer(&store, task, &stop)).collect();
    for round in 0..4 {
        let before = store.safe_position().await;
        if round > 0 {
            // The store has found the server again, and goes on.
            let number = -round;
            settle(&store, one(stream("again"), number).idempotency_key(number.to_string())).await;
        }
        let appended = async || match (&before, store.safe_position().await) {
            (Ok(before), Ok(now)) => now.get() > before.get() + 200,
            (_, now) => now.is_ok(),
        };
        eventually("events are appended", appended).await;
        kill_all(&mut server);
        server.restart().await;
    }
    settle(&store, one(stream("again"), -4).idempotency_key("-4")).await;
    stop.store(true, Ordering::Relaxed);
    let outcomes: Vec<_> =
        in_time(join_all(writers)).await.into_iter().flat_map(Result::unwrap).collect();
    let seen = in_time(follower.stop()).await;

    let log = log(&database.store().await).await;
    assert_sound(&log);
    assert_eq!(seen.len(), log.len(), "what a reader has seen is what is there");
    assert!(seen == log, "the reader saw each event once, in order");
    let Outcomes { acknowledged, unknown } = Outcomes::of(&log, outcomes);
    println!("{acknowledged} appends acknowledged, {unknown} unknown");
    assert!(acknowledged > 100 && unknown > 0, "the test tests nothing");
    let verification = database.store().await.verify().run().await.unwrap();
    assert_eq!(verification.findings, []);
    let client = database.client().await;
    assert_eq!(direct::registered(&client).await, 0);
}

/// Positions that a rolled-back append drew are a gap that readers pass; nothing has made it durable. Events
/// recorded there after a crash would be lost on those readers.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_position_that_a_reader_has_passed_is_never_used_again() {
    // Nothing but commits writes to disk.
    let settings =
        ["wal_writer_delay=10s", "wal_level=minimal", "max_wal_senders=0", "autovacuum=off"];
    let mut server = PrivateServer::start(&settings).await;
    let database = TestDatabase::create_on(server.config()).await;
    let store = database.store().await;
    let mut forgotten = 0;
    // The server may write for reasons of its own; then there is nothing to see.
    for round in 0..10 {
        let last = settle(&store, one(stream("a"), round).idempotency_key(round.to_string())).await;
        let watcher = database.client().await;
        let mut client = database.client().await;
        let append = client.transaction().await.unwrap();
        direct::append(&append, "b", &direct::ids(5)).await.unwrap();
        append.rollback().await.unwrap();
        let passed = direct::safe_position(&watcher).await;
        assert_eq!(passed, last.last_position.get() + 5, "readers pass the gap");

        kill_all(&mut server);
        server.restart().await;
        let client = database.client().await;
        forgotten += i32::from(direct::last_position(&client).await < passed);
        let number = 100 + round;
        let next =
            settle(&store, one(stream("a"), number).idempotency_key(number.to_string())).await;
        assert!(next.first_position > Position::new(passed), "{next:?} is not above {passed}");
        if forgotten > 1 {
            return;
        }
    }
    panic!("no crash made the server forget a position: the test tests nothing");
}

/// With `synchronous_commit = off` a commit is acknowledged, and seen by readers, before it is durable.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_acknowledged_event_is_durable_whatever_the_servers_setting() {
    let mut server =
        PrivateServer::start(&["synchronous_commit=off", "wal_writer_delay=10s"]).await;
    let database = TestDatabase::create_on(server.config()).await;
    let store = database.store().await;
    for round in 0..5 {
        let appended =
            settle(&store, one(stream("a"), round).idempotency_key(round.to_string())).await;
        kill_all(&mut server);
        server.restart().await;
        let store = database.store().await;
        let log = log(&store).await;
        assert_eq!(log.len() as i64, round + 1, "acknowledged: {appended:?}");
        assert_eq!(log.last().unwrap().position, appended.last_position);
    }
    // A command without events has nothing but its key.
    let store = database.store().await;
    let nothing = || Envelope::new(Change::new("b", [])).idempotency_key("nothing");
    store.execute(nothing()).await.unwrap();
    kill_all(&mut server);
    server.restart().await;
    assert!(database.store().await.execute(nothing()).await.unwrap().replayed);
    // Also as a part of a program's own transaction.
    let mut client = database.client().await;
    let own = client.transaction().await.unwrap();
    let setting = own.query_one("show synchronous_commit", &[]).await.unwrap();
    assert_eq!(setting.get::<_, &str>(0), "off");
    direct::append(&own, "b", &direct::ids(1)).await.unwrap();
    let setting = own.query_one("show synchronous_commit", &[]).await.unwrap();
    assert_eq!(setting.get::<_, &str>(0), "on");
    own.commit().await.unwrap();
}

/// Time stands still across a crash rather than going back, and so do positions.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_clean_restart_leaves_no_gap() {
    let mut server = PrivateServer::start(&[]).await;
    let database = TestDatabase::create_on(server.config()).await;
    let store = database.store().await;
    store.append(Append::to(stream("a"), ExpectedVersion::Any, [event(1)])).await.unwrap();
    server.restart().await;
    let next = settle(&store, one(stream("a"), 2).idempotency_key("2")).await;
    assert_eq!(next.first_position, Position::new(2));
}
