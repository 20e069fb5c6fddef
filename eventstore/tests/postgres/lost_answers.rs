//! Appends that are recorded while the answer is lost on its way.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use annals_eventstore::{Envelope, Error, EventStore, testkit::faults::Link};
use futures::future::join_all;

use crate::support::{
    TestDatabase, assert_sound,
    counter::{Change, load},
    in_time, log, numbers, one, stream,
};

/// Swallows an answer now and then, until told to stop.
fn loser(link: Link, every: Duration) -> (tokio::task::JoinHandle<Link>, Arc<AtomicBool>) {
    let stop = Arc::new(AtomicBool::new(false));
    let stopped = Arc::clone(&stop);
    let losing = async move {
        while !stopped.load(Ordering::Relaxed) {
            tokio::time::sleep(every).await;
            link.lose_next_answer();
        }
        link
    };
    (tokio::spawn(losing), stop)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_append_whose_answer_is_lost_is_of_unknown_outcome() {
    let database = TestDatabase::create().await;
    let link = database.link().await;
    let store = EventStore::connect(link.url()).await.unwrap();
    let append = |number: i64| one(stream("a"), number).idempotency_key(number.to_string());
    let (mut appended, mut lost) = (0, 0);
    while lost < 5 {
        // Opens a connection and prepares the statement; then waits until the nudge is out.
        store.append(append(appended)).await.unwrap();
        tokio::time::sleep(Duration::from_millis(100)).await;
        link.lose_next_answer();
        let append = append(appended + 1);
        match store.append(append.clone()).await {
            Err(Error::Indeterminate { .. }) => lost += 1,
            // It was late, and its answer was the one that is lost.
            Ok(_) => assert!(appended < 100, "answers to nudges alone are lost"),
            Err(error) => panic!("{error:?}"),
        }
        // The key settles it: it had been recorded.
        assert!(store.append(append).await.unwrap().replayed);
        appended += 2;
    }
    assert!(numbers(&log(&store).await).into_iter().eq(0..appended));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_append_is_recorded_twice_when_answers_are_lost() {
    let database = TestDatabase::create().await;
    let link = database.link().await;
    let store = EventStore::connect(link.url()).await.unwrap();
    let (losing, stop) = loser(link, Duration::from_millis(8));
    // Until there was one that is recorded and whose answer was lost, too.
    let (unknown, observer) = (Arc::new(AtomicBool::new(false)), database.store().await);
    let tasks = (0..40).map(|task| {
        let (store, unknown, observer) = (store.clone(), unknown.clone(), observer.clone());
        tokio::spawn(async move {
            let mut outcomes = Vec::new();
            for round in 0.. {
                if round >= 25 && unknown.load(Ordering::Relaxed) {
                    break;
                }
                let number = task * 1_000_000 + round;
                let outcome = store.append(one(stream(number % 20), number)).await;
                let is_unknown = matches!(outcome, Err(Error::Indeterminate { .. }));
                if is_unknown && !unknown.load(Ordering::Relaxed) {
                    let recorded = numbers(&log(&observer).await).contains(&number);
                    unknown.fetch_or(recorded, Ordering::Relaxed);
                }
                outcomes.push((number, outcome));
            }
            outcomes
        })
    });
    let outcomes: Vec<_> =
        in_time(join_all(tasks)).await.into_iter().flat_map(Result::unwrap).collect();
    stop.store(true, Ordering::Relaxed);
    losing.await.unwrap();

    let log = log(&database.store().await).await;
    assert_sound(&log);
    let mut recorded_unknown = 0;
    for (number, outcome) in outcomes {
        let recorded = numbers(&log).into_iter().filter(|recorded| *recorded == number).count();
        match outcome {
            Ok(_) => assert_eq!(recorded, 1, "append {number} was acknowledged"),
            Err(Error::Indeterminate { .. }) => {
                assert!(recorded <= 1, "append {number} is recorded {recorded} times");
                recorded_unknown += recorded;
            }
            Err(error) => assert_eq!(recorded, 0, "append {number}: {error:?}"),
        }
    }
    println!("{recorded_unknown} appends were recorded without an answer");
    assert!(recorded_unknown > 0, "the test tests nothing");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_keys_commands_are_executed_once_when_answers_are_lost() {
    let database = TestDatabase::create().await;
    let link = database.link().await;
    let store = EventStore::connect(link.url()).await.unwrap();
    let (losing, stop) = loser(link, Duration::from_millis(60));
    let tasks = (0..8).map(|task| {
        let store = store.clone();
        tokio::spawn(async move {
            for round in 0..20 {
                let command = |part: i64| {
                    Envelope::new(Change::new(format!("{task} {part}"), [1, 1]))
                        .idempotency_key(format!("{task} {round} {part}"))
                };
                while let Err(error) = store.execute_all((0..3).map(command)).await {
                    assert!(error.is_retryable(), "{error:?}");
                }
            }
        })
    });
    in_time(join_all(tasks)).await.into_iter().for_each(Result::unwrap);
    stop.store(true, Ordering::Relaxed);
    losing.await.unwrap();
    let store = database.store().await;
    for (task, part) in (0..8).flat_map(|task| (0..3).map(move |part| (task, part))) {
        assert_eq!(load(&store, &format!("{task} {part}")).await.state.total, 40);
    }
}
