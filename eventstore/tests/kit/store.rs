//! A store among faults.

use std::time::Duration;

use annals_eventstore::{
    Envelope, Error, EventStore, ExecuteError,
    testkit::faults::{Fault, Faults, Injected, Link, Plan, Seed},
};
use futures::future::join_all;

use crate::support::{
    TestDatabase, assert_sound,
    counter::{Change, load},
    in_time, log,
};

fn faults(seed: u64) -> Faults {
    Faults::new(Seed::of(seed))
        .rate(Fault::Conflict, 0.1)
        .rate(Fault::Failure, 0.1)
        .rate(Fault::TimedOut, 0.05)
        .rate(Fault::LostAnswer, 0.1)
}

/// What became of commands, one after the other, without keys.
async fn story(faults: &Faults) -> Vec<&'static str> {
    let store = faults.store(&EventStore::in_memory());
    let mut story = Vec::new();
    for number in 0..300 {
        let outcome = store.execute(Change::new(format!("{}", number % 7), [1])).await;
        story.push(match outcome {
            Ok(_) => "done",
            Err(ExecuteError::Failed(Error::Database { source, .. })) => {
                assert!(source.is::<Injected>(), "{source:?}");
                "failed"
            }
            Err(ExecuteError::Failed(Error::TimedOut { .. })) => "timed out",
            Err(ExecuteError::Failed(Error::Indeterminate { .. })) => "unknown",
            Err(error) => panic!("{error:?}"),
        });
    }
    story
}

#[tokio::test]
async fn the_same_seed_leads_to_the_same_story() {
    let first = faults(1);
    let told = story(&first).await;
    assert_eq!(told, story(&faults(1)).await);
    assert_ne!(told, story(&faults(2)).await);
    for what in ["done", "failed", "timed out", "unknown"] {
        assert!(told.contains(&what), "{what} is not in it");
    }
    // Those are decided again, and nobody notices.
    assert!(first.injected(Fault::Conflict) > 10);
    assert_eq!(first.injected(Fault::Repetition), 0);
}

#[tokio::test]
async fn what_surely_failed_is_not_recorded_and_what_was_done_is() {
    let (memory, faults) = (EventStore::in_memory(), faults(3));
    let store = faults.store(&memory);
    let (mut done, mut unknown) = (0, 0);
    for _ in 0..400 {
        match store.execute(Change::new("a", [1])).await {
            Ok(_) => done += 1,
            Err(ExecuteError::Failed(Error::Indeterminate { .. })) => unknown += 1,
            Err(_) => {}
        }
    }
    assert!(done > 100 && unknown > 10, "{done} done, {unknown} unknown");
    // An answer is lost after the deed, always.
    assert_eq!(load(&memory, "a").await.state.total, done + unknown);
}

/// Executes commands from several tasks, each until it succeeds.
async fn run(faults: &Faults, store: &EventStore, keyed: bool) {
    let tasks = (0..4).map(|task| {
        let (faults, store) = (faults.clone(), store.clone());
        tokio::spawn(async move {
            for number in 0..40 {
                let key = format!("{}", number % 5);
                let mut command = Envelope::new(Change::new(key, [1]));
                if keyed {
                    command = command.idempotency_key(format!("{task} {number}"));
                }
                while let Err(error) = faults.execute(&store, command.clone()).await {
                    let ExecuteError::Failed(error) = &error else { panic!("{error:?}") };
                    let again = error.is_retryable() || matches!(error, Error::Conflict { .. });
                    assert!(again, "{error:?}");
                }
            }
        })
    });
    in_time(join_all(tasks)).await.into_iter().for_each(Result::unwrap);
}

async fn total(store: &EventStore) -> i64 {
    let mut total = 0;
    for key in 0..5 {
        total += load(store, &key.to_string()).await.state.total;
    }
    total
}

#[tokio::test(flavor = "multi_thread")]
async fn commands_with_keys_come_out_exact_over_a_bad_network() {
    let database = TestDatabase::create().await;
    let link = Link::postgres(&database.url()).await.unwrap();
    let options = EventStore::options().append_timeout(Duration::from_secs(5));
    let connected = options.connect(link.url()).await.unwrap();
    let seed = Seed::any();
    link.follow(Plan::new(seed).cuts(0.002).loses_answers(0.005).refuses(0.1));
    let faults = faults(seed.get()).rate(Fault::Repetition, 0.2);
    run(&faults, &faults.store(&connected), true).await;
    let direct = database.store().await;
    assert_eq!(total(&direct).await, 160);
    assert_sound(&log(&direct).await);
    assert!(link.disturbed() > 0 && faults.injected(Fault::LostAnswer) > 0, "it tests nothing");
    assert!(faults.injected(Fault::Repetition) > 0, "it tests nothing");
}

/// Who tries again without a key, as this caller does, is found out.
#[tokio::test]
async fn commands_that_are_repeated_without_keys_are_found_out() {
    let (memory, faults) = (EventStore::in_memory(), faults(5).rate(Fault::Repetition, 0.2));
    run(&faults, &faults.store(&memory), false).await;
    let (found, repeated) = (total(&memory).await, faults.injected(Fault::Repetition));
    assert!(found > 160 && repeated > 0, "{found}, of which {repeated} were repeated");
}

#[tokio::test(flavor = "multi_thread")]
async fn units_of_work_are_disturbed_too() {
    let database = TestDatabase::create().await;
    let (direct, faults) = (database.store().await, faults(7));
    let store = faults.store(&direct);
    for number in 0..60 {
        let unit = async || {
            store
                .transact(async |unit| {
                    let known = unit.idempotency_key(format!("unit {number}"), &number).await?;
                    if known.is_none() {
                        unit.execute(Change::new("a", [1])).await?;
                        unit.execute(Change::new("b", [1])).await?;
                    }
                    Ok::<_, ExecuteError<_>>(())
                })
                .await
        };
        while let Err(error) = unit().await {
            let ExecuteError::Failed(error) = &error else { panic!("{error:?}") };
            assert!(error.is_retryable() || matches!(error, Error::Conflict { .. }), "{error:?}");
        }
    }
    assert_eq!(load(&direct, "a").await.state.total, 60);
    assert_eq!(load(&direct, "b").await.state.total, 60);
    assert!(faults.injected(Fault::LostAnswer) > 0, "it tests nothing");
}
