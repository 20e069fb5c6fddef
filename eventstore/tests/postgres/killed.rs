//! Backends that are killed in the middle of appends.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use annals_eventstore::{Appended, Envelope, Error, EventStore, ExecuteError};
use futures::future::join_all;

use crate::support::{
    TestDatabase, assert_sound,
    counter::{Change, load},
    direct, in_time, kill, log, number, numbers, one,
    outcomes::{Outcomes, halves},
    stream,
};

/// Kills the store's backends again and again until told to stop; returns how many it killed.
async fn killer(database: &TestDatabase) -> (tokio::task::JoinHandle<usize>, Arc<AtomicBool>) {
    let stop = Arc::new(AtomicBool::new(false));
    let stopped = Arc::clone(&stop);
    let client = database.client_as("killer").await;
    let killing = async move {
        let mut killed = 0;
        // Now and then there is time for an append, however slow the machine is.
        for pause in [40, 40, 40, 300].into_iter().cycle() {
            if stopped.load(Ordering::Relaxed) {
                break;
            }
            tokio::time::sleep(Duration::from_millis(pause)).await;
            killed += kill(&client, "annals").await;
        }
        killed
    };
    (tokio::spawn(killing), stop)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_append_is_recorded_once_or_not_acknowledged() {
    let database = TestDatabase::create().await;
    let store = database.store().await;
    let (killing, stop) = killer(&database).await;
    let tasks = (0..40).map(|task| {
        let store = store.clone();
        tokio::spawn(async move {
            let mut outcomes = Vec::new();
            for round in 0..40 {
                let number = task * 1000 + round;
                let append = halves(number % 20, task, number);
                outcomes.push((number, store.append(append).await));
            }
            outcomes
        })
    });
    let outcomes: Vec<(i64, Result<Appended, Error>)> =
        in_time(join_all(tasks)).await.into_iter().flat_map(Result::unwrap).collect();
    stop.store(true, Ordering::Relaxed);
    let killed = killing.await.unwrap();

    let log = log(&database.store().await).await;
    assert_sound(&log);
    let Outcomes { acknowledged, unknown } = Outcomes::of(&log, outcomes);
    println!("{killed} backends killed, {acknowledged} appends acknowledged, {unknown} unknown");
    assert!(killed > 0 && acknowledged > 0, "the test tests nothing");
    let client = database.client().await;
    assert_eq!(direct::registered(&client).await, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_a_key_an_append_is_retried_until_it_is_recorded_once() {
    let database = TestDatabase::create().await;
    let store = database.store().await;
    let (killing, stop) = killer(&database).await;
    let tasks = (0..40).map(|task| {
        let store = store.clone();
        tokio::spawn(async move {
            let mut acknowledged = Vec::new();
            let mut retries = 0;
            for round in 0..30 {
                let number = task * 1000 + round;
                let append = one(stream(number % 20), number).idempotency_key(number.to_string());
                let appended = loop {
                    match store.append(append.clone()).await {
                        Ok(appended) => break appended,
                        Err(error) => assert!(error.is_retryable(), "{error:?}"),
                    }
                    retries += 1;
                };
                acknowledged.push((appended.first_position, number));
            }
            (acknowledged, retries)
        })
    });
    let outcomes: Vec<_> = in_time(join_all(tasks)).await.into_iter().map(Result::unwrap).collect();
    stop.store(true, Ordering::Relaxed);
    let killed = killing.await.unwrap();
    let retries: usize = outcomes.iter().map(|(_, retries)| retries).sum();
    println!("{killed} backends killed, {retries} retries");
    let mut acknowledged: Vec<_> =
        outcomes.into_iter().flat_map(|(appended, _)| appended).collect();
    acknowledged.sort_unstable();

    let log = log(&database.store().await).await;
    assert_sound(&log);
    let recorded: Vec<_> = log.iter().map(|event| event.position).zip(numbers(&log)).collect();
    assert_eq!(recorded, acknowledged, "each once, where it was said to be");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_keys_commands_are_executed_once() {
    let database = TestDatabase::create().await;
    let store = database.store().await;
    let (killing, stop) = killer(&database).await;
    let tasks = (0..8).map(|task| {
        let store: EventStore = store.clone();
        tokio::spawn(async move {
            for round in 0..10 {
                let command = |part: i64| {
                    Envelope::new(Change::new(part % 3, [1]))
                        .idempotency_key(format!("{task} {round} {part}"))
                };
                loop {
                    match store.execute_all((0..6).map(command)).await {
                        Ok(outcomes) => {
                            assert!(outcomes.iter().all(|outcome| outcome.is_ok()), "{outcomes:?}");
                            break;
                        }
                        Err(Error::Conflict { .. }) => {}
                        Err(error) => assert!(error.is_retryable(), "{error:?}"),
                    }
                }
                let alone = Envelope::new(Change::new("alone", [1]))
                    .idempotency_key(format!("{task} {round}"));
                while let Err(error) = store.execute(alone.clone()).await {
                    let ExecuteError::Failed(error) = error else { panic!("{error}") };
                    let passes = error.is_retryable() || matches!(error, Error::Conflict { .. });
                    assert!(passes, "{error:?}");
                }
            }
        })
    });
    in_time(join_all(tasks)).await.into_iter().for_each(Result::unwrap);
    stop.store(true, Ordering::Relaxed);
    assert!(killing.await.unwrap() > 0);
    let store = database.store().await;
    for (key, total) in [("0", 160), ("1", 160), ("2", 160), ("alone", 80)] {
        assert_eq!(load(&store, key).await.state.total, total, "counter {key}");
    }
    assert_sound(&log(&store).await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_recovers_when_all_its_backends_are_killed_at_rest() {
    let database = TestDatabase::create().await;
    let store = database.store().await;
    let client = database.client_as("killer").await;
    for round in 0..10 {
        // Reading and appending open connections of their own.
        let appended = loop {
            match store.append(one(stream("a"), round).idempotency_key(round.to_string())).await {
                Ok(appended) => break appended,
                Err(error) => assert!(error.is_retryable(), "{error:?}"),
            }
        };
        assert_eq!(appended.versions[0].1.get(), round + 1);
        let read = loop {
            let position = appended.first_position.get() - 1;
            match crate::support::all(store.read_all(annals_eventstore::Position::new(position)))
                .await
            {
                Ok(read) => break read,
                Err(error) => assert!(error.is_retryable(), "{error:?}"),
            }
        };
        assert_eq!(read.iter().map(number).collect::<Vec<_>>(), [round]);
        assert!(kill(&client, "annals").await > 0);
    }
}

// On one thread: what the server says of the end is heard when the next statement is sent.
#[tokio::test]
async fn a_transaction_that_the_server_ends_for_its_idleness_may_be_tried_again() {
    let database = TestDatabase::create().await;
    let store = database.store().await;
    let patience = "set local idle_in_transaction_session_timeout = 100";
    let transaction = store.database().unwrap().begin_with(patience).await.unwrap();
    std::thread::sleep(Duration::from_millis(500));
    let error = transaction.check().await.unwrap_err();
    assert!(error.is_retryable(), "{error:?}");
}
