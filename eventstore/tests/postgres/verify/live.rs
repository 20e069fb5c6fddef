//! A verification beside the work, and appends that hang.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use annals_eventstore::{
    Append, EventStore, ExpectedVersion, StreamId, StreamState,
    verify::{Check, Finding, Progress},
};

use super::{changed, looked_at, store_of_three, verify};
use crate::support::{
    TestDatabase,
    counter::{Counter, counter},
    direct, events, eventually, one,
    snapshots::{ByHand, Count, KeepTwo},
    stream,
};

const ANY: ExpectedVersion = ExpectedVersion::Any;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_wrong_with_a_store_at_work() {
    let database = TestDatabase::create().await;
    let store = database.store().await;
    let done = Arc::new(AtomicBool::new(false));
    let mut work = Vec::new();
    for writer in 0..4 {
        let (store, done) = (store.clone(), done.clone());
        work.push(tokio::spawn(async move {
            for number in 0.. {
                if done.load(Ordering::Relaxed) {
                    return number;
                }
                // Refusals are among it: the keeper below archives and deletes.
                let key = format!("key-{writer}-{number}");
                // The log is to stay short, for the verifications are many.
                tokio::time::sleep(Duration::from_millis(5)).await;
                let append = Append::to(stream(number % 7), ANY, events([1, 2]));
                drop(store.append(append.idempotency_key(key)).await);
                let count = Count(format!("{}", number % 3), number);
                drop(store.execute(count).await);
                let changed = Append::to(counter(number % 5), ANY, [changed(number)]);
                drop(store.append(changed).await);
            }
            0
        }));
    }
    // One that is rolled back leaves holes.
    let (aborting, stop) = (database.client().await, done.clone());
    work.push(tokio::spawn(async move {
        let mut number = 0;
        while !stop.load(Ordering::Relaxed) {
            number += 1;
            aborting.batch_execute("begin").await.unwrap();
            direct::append(&aborting, "aborted", &direct::ids(3)).await.unwrap();
            tokio::time::sleep(Duration::from_millis(5)).await;
            aborting.batch_execute("rollback").await.unwrap();
        }
        number
    }));
    let (keeper, stop) = (store.clone(), done.clone());
    work.push(tokio::spawn(async move {
        let mut number = 0;
        while !stop.load(Ordering::Relaxed) {
            number += 1;
            let of: StreamId = stream(number % 7);
            drop(keeper.archive_stream(&of, ANY).await);
            drop(keeper.restore_stream(&of).await);
            drop(keeper.delete_stream(&of, ANY).await);
            drop(keeper.restore_stream(&of).await);
            drop(keeper.snapshot::<ByHand>(number % 3).await);
        }
        number
    }));
    let other = database.store().await;
    // Often, since what takes two statements has to meet an append in between.
    for _ in 0..60 {
        assert_eq!(other.verify().run().await.unwrap().findings, []);
    }
    for _ in 0..8 {
        let verify = other.verify().aggregate::<KeepTwo>().aggregate::<ByHand>();
        assert_eq!(verify.run().await.unwrap().findings, []);
    }
    done.store(true, Ordering::Relaxed);
    for worker in work {
        assert!(worker.await.unwrap() > 3, "a test of nothing");
    }
    let verification = verify(&other).await;
    assert!(looked_at(&verification, Check::Log) > 50, "a test of nothing");
    assert_eq!(verification.in_flight, []);
}

#[tokio::test]
async fn an_append_that_hangs_is_found_and_named() {
    let (database, store, _client) = store_of_three().await;
    let stuck = database.client_as("the stuck one").await;
    let pid: i32 = stuck.query_one("select pg_backend_pid()", &[]).await.unwrap().get(0);
    stuck.batch_execute("begin").await.unwrap();
    direct::append(&stuck, "held", &direct::ids(2)).await.unwrap();
    // Not long enough to be a finding.
    let verification = verify(&store).await;
    assert_eq!(verification.findings, []);
    assert_eq!(verification.up_to.get(), 12);
    assert_eq!(verification.in_flight.len(), 1);

    let verification = store.verify().stuck_after(Duration::ZERO).run().await.unwrap();
    let Finding::StuckAppend { registration } = &verification.findings[0] else {
        panic!("{:?}", verification.findings)
    };
    assert_eq!((registration.position.get(), registration.pid), (12, Some(pid)));
    assert_eq!(registration.application.as_deref(), Some("the stuck one"));
    assert_eq!(registration.state.as_deref(), Some("idle in transaction"));
    let text = verification.findings[0].to_string();
    let start = format!(
        "an append is stuck: registered at position 12 by pid {pid} of \"the stuck one\", idle in \
         transaction for "
    );
    assert!(text.starts_with(&start), "{text}");
    assert_eq!(verification.findings.len(), 1);
    stuck.batch_execute("rollback").await.unwrap();
    let verification = store.verify().stuck_after(Duration::ZERO).run().await.unwrap();
    assert!(verification.is_sound() && verification.in_flight.is_empty());
}

/// A session that took the lock by hand holds up the readers too.
#[tokio::test]
async fn a_registration_that_no_append_holds_is_found() {
    let (database, store, _client) = store_of_three().await;
    let stuck = database.client().await;
    let lock = "select pg_advisory_lock_shared((id::bigint << 48) | 4) from annals.store";
    stuck.batch_execute(lock).await.unwrap();
    let verification = store.verify().stuck_after(Duration::ZERO).run().await.unwrap();
    let Finding::StuckAppend { registration } = &verification.findings[0] else {
        panic!("{:?}", verification.findings)
    };
    assert_eq!(registration.position.get(), 4);
    assert_eq!(registration.state.as_deref(), Some("idle"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_works_behind_a_pooler() {
    let (database, store, _client) = store_of_three().await;
    store.append(one(counter("a"), 1)).await.unwrap();
    let pooler = database.pooler().await;
    let pooled = EventStore::options().transaction_pooler().connect(&pooler.url()).await.unwrap();
    let (direct, pooled) = (verify(&store).await, verify(&pooled).await);
    assert_eq!(direct.findings.len(), 1);
    assert_eq!(direct, pooled);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_tells_how_far_it_is() {
    let (_database, store, _client) = store_of_three().await;
    let seen = Arc::new(Mutex::new(Vec::new()));
    let told = seen.clone();
    let verify = store.verify().aggregate::<Counter>();
    verify.on_progress(move |progress| told.lock().unwrap().push(progress)).run().await.unwrap();
    let seen = std::mem::take(&mut *seen.lock().unwrap());
    let last = |check| seen.iter().rfind(|progress| progress.check == check).copied().unwrap();
    assert_eq!((last(Check::Log).done, last(Check::Log).of), (12, Some(12)));
    assert_eq!((last(Check::Streams).done, last(Check::Streams).of), (3, Some(3)));
}

/// Whoever does not wait for it leaves nothing behind.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_can_be_dropped_at_any_time() {
    let (_database, store, client) = store_of_three().await;
    for microseconds in [0, 100, 1_000, 5_000, 20_000] {
        let limit = Duration::from_micros(microseconds);
        drop(tokio::time::timeout(limit, store.verify().run()).await);
    }
    assert!(verify(&store).await.is_sound());
    eventually("nothing is held", async || {
        let sql = "select count(*) from pg_locks l join pg_class c on c.oid = l.relation
            join pg_namespace n on n.oid = c.relnamespace
            where n.nspname = 'annals' and l.pid <> pg_backend_pid()";
        client.query_one(sql, &[]).await.unwrap().get::<_, i64>(0) == 0
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_that_moves_between_two_pages_is_looked_at_once() {
    let database = TestDatabase::create().await;
    let store = database.store().await;
    store.append(Append::to(stream("a"), ANY, events(1..=5_000))).await.unwrap();
    for state in [StreamState::Archived, StreamState::Live] {
        let (mover, runtime) = (store.clone(), tokio::runtime::Handle::current());
        let moved = move |progress: Progress| {
            if progress.check == Check::Log {
                tokio::task::block_in_place(|| {
                    runtime.block_on(async {
                        match state {
                            StreamState::Archived => mover.archive_stream(&stream("a"), ANY).await,
                            _ => mover.restore_stream(&stream("a")).await,
                        }
                    })
                })
                .unwrap();
            }
        };
        let verification = store.verify().on_progress(moved).run().await.unwrap();
        assert_eq!(verification.findings, []);
        assert_eq!(looked_at(&verification, Check::Log), 5_000);
        let info = store.stream_info(&stream("a")).await.unwrap().unwrap();
        assert_eq!(info.state, state, "a test of nothing");
    }
}
