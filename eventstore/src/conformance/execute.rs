//! Commands: load, decide, append; one by one, in lots, and in each other's way.

use std::sync::{Arc, atomic::Ordering};

use annals_eventstore::{
    Append, Envelope, Error, EventStore, ExecuteError, ExpectedVersion, Metadata, NewEvent,
    Position, Version,
};
use futures::future::join_all;

use super::support::{
    assert_sound,
    counter::{BelowZero, Change, Counter, CounterEvent, Start, counter, load},
    history, log,
};

pub(crate) async fn a_command_leads_to_events(store: &EventStore) {
    let first = store.execute(Change::new("a", [5])).await.unwrap();
    let second = store.execute(Change::new("a", [-2, 4])).await.unwrap();
    let log = log(store).await;
    assert_eq!((first.stream, first.version, first.events), (counter("a"), Version::new(1), 1));
    assert_eq!(first.position, log[0].position);
    assert_eq!((second.version, second.events, second.replayed), (Version::new(3), 2, false));
    assert_eq!(second.position, log[2].position);
    assert_eq!(&*log[0].event_type, "changed");
    assert_eq!(log[0].event.as_bytes(), br#"{"by":5}"#);
    let loaded = load(store, "a").await;
    assert_eq!(loaded.state, Counter { total: 7, changes: 3 });
    assert_eq!((loaded.version, loaded.position), (Version::new(3), log[2].position));
}

pub(crate) async fn a_rejected_command_is_decided_once_and_records_nothing(store: &EventStore) {
    store.execute(Change::new("a", [5])).await.unwrap();
    let command = Change::new("a", [1, -7]);
    match store.execute(command.clone()).await {
        Err(error @ ExecuteError::Rejected(BelowZero { total: 6, by: -7 })) => {
            assert!(!error.is_retryable());
        }
        other => panic!("not rejected: {other:?}"),
    }
    assert_eq!(command.decisions.load(Ordering::Relaxed), 1);
    let unknown = Change::new("unknown", [-1]);
    assert!(matches!(store.execute(unknown).await, Err(ExecuteError::Rejected(_))));
    assert_eq!(log(store).await.len(), 1);
    assert!(store.load::<Counter>("unknown").await.unwrap().is_none());
}

pub(crate) async fn a_command_that_starts_a_stream_knows_one_that_exists(store: &EventStore) {
    let decisions = |start: &Start| start.decisions.load(Ordering::Relaxed);
    let rejected = |result| matches!(result, Err(ExecuteError::Rejected(BelowZero { .. })));
    let start = Start::new("a", 5);
    assert_eq!(store.execute(start.clone()).await.unwrap().version, Version::new(1));
    assert!(rejected(store.execute(start.clone()).await));
    assert_eq!(decisions(&start), 2);

    // Streams that the store has not seen yet: they look as if they were to be started.
    let changed = || NewEvent::of(&CounterEvent::Changed { by: 1 }).unwrap();
    for name in ["b", "c", "d", "e"] {
        let append = Append::to(counter(name), ExpectedVersion::NoStream, [changed()]);
        store.append(append).await.unwrap();
    }
    let start = Start::new("b", 5);
    assert!(rejected(store.execute(start.clone()).await));
    assert_eq!(decisions(&start), 2);
    // Also where nothing is to be recorded, and in a lot.
    assert!(rejected(store.execute(Start::new("c", 0)).await));
    let lot = ["d", "new", "new"].map(|name| Start::new(name, 1));
    let outcomes = store.execute_all(lot).await.unwrap();
    let versions = outcomes.into_iter().map(|outcome| outcome.ok().map(|done| done.version));
    assert_eq!(versions.collect::<Vec<_>>(), [None, Some(Version::new(1)), None]);
    store.delete_stream(&counter("e"), ExpectedVersion::Any).await.unwrap();
    let deleted = store.execute(Start::new("e", 1)).await;
    let refused = |error: &_| matches!(error, ExecuteError::Failed(Error::StreamDeleted { .. }));
    assert!(deleted.as_ref().is_err_and(refused), "{deleted:?}");
    assert_eq!(log(store).await.iter().filter(|event| event.version > Version::new(1)).count(), 0);
    assert_eq!(load(store, "b").await.state, Counter { total: 1, changes: 1 });
}

pub(crate) async fn later_commands_of_a_lot_see_the_events_of_earlier_ones(store: &EventStore) {
    let outcomes = store
        .execute_all([
            Change::new("a", [5]),
            Change::new("a", [-7]),
            Change::new("a", [3]),
            Change::new("a", [-7]),
            Change::new("b", [-1]),
            Change::new("b", [1]),
            Change::new("a", [-2]),
        ])
        .await
        .unwrap();
    let decided: Vec<_> = outcomes.iter().map(Result::is_ok).collect();
    assert_eq!(decided, [true, false, true, true, false, true, false]);
    let totals = [load(store, "a").await.state.total, load(store, "b").await.state.total];
    assert_eq!(totals, [1, 1]);
    match &outcomes[6] {
        Err(ExecuteError::Rejected(error)) => assert_eq!(*error, BelowZero { total: 1, by: -2 }),
        other => panic!("{other:?}"),
    }
}

pub(crate) async fn a_lot_reports_what_the_log_holds(store: &EventStore) {
    store.execute(Change::new("b", [1, 1])).await.unwrap();
    let commands: Vec<_> = (0..50)
        .map(|number| {
            // Some lead to no event, some to several, some are rejected.
            let by = [vec![number], vec![], vec![number, 1, 2], vec![-100_000]];
            Change::new(["a", "b", "c"][number as usize % 3], by[number as usize % 4].clone())
        })
        .collect();
    let outcomes = store.execute_all(commands.clone()).await.unwrap();
    assert_eq!(outcomes.len(), commands.len());
    let log = log(store).await;
    assert_sound(&log);
    let mut next = 2;
    for (command, outcome) in commands.iter().zip(outcomes) {
        if command.by == [-100_000] {
            assert!(matches!(outcome, Err(ExecuteError::Rejected(_))), "{outcome:?}");
            continue;
        }
        let committed = outcome.unwrap();
        assert_eq!(committed.events, command.by.len());
        assert_eq!(committed.stream, counter(&command.counter));
        let own = &log[next..next + command.by.len()];
        next += command.by.len();
        assert!(own.iter().all(|event| event.stream == committed.stream));
        match own.last() {
            Some(last) => {
                assert_eq!((last.position, last.version), (committed.position, committed.version))
            }
            None => {
                let before =
                    log[..next].iter().filter(|event| event.stream == committed.stream).count();
                assert_eq!(committed.position, Position::START);
                assert_eq!(committed.version.get(), before as i64);
            }
        }
        let by: Vec<_> = own.iter().map(|event| event.event.as_bytes().to_vec()).collect();
        let wanted: Vec<_> =
            command.by.iter().map(|by| format!(r#"{{"by":{by}}}"#).into_bytes()).collect();
        assert_eq!(by, wanted);
    }
    assert_eq!(next, log.len());
}

pub(crate) async fn a_lot_without_commands_records_nothing(store: &EventStore) {
    assert!(store.execute_all(Vec::<Change>::new()).await.unwrap().is_empty());
    assert!(log(store).await.is_empty());
}

pub(crate) async fn commands_without_events_record_nothing(store: &EventStore) {
    let idle = store.execute(Change::new("a", [])).await.unwrap();
    assert_eq!((idle.version, idle.position, idle.events), (Version::NONE, Position::START, 0));
    assert!(!idle.replayed);
    store.execute_all([Change::new("a", []), Change::new("b", [])]).await.unwrap();
    assert!(log(store).await.is_empty());
    assert!(store.load::<Counter>("a").await.unwrap().is_none());
}

pub(crate) async fn a_command_for_an_impossible_stream_fails_alone(store: &EventStore) {
    let commands = [Change::new("a", [1]), Change::new("", [2]), Change::new("a", [4])];
    let outcomes = store.execute_all(commands).await.unwrap();
    assert!(matches!(outcomes[1], Err(ExecuteError::Failed(Error::InvalidStream { .. }))));
    assert!(outcomes[0].is_ok() && outcomes[2].is_ok(), "{outcomes:?}");
    assert_eq!(load(store, "a").await.state.total, 5);
}

pub(crate) async fn what_is_said_about_a_command_is_said_of_its_events_only(store: &EventStore) {
    let metadata = Metadata::new().actor("clerk").with("branch", 7);
    let occurred = "2001-02-03T04:05:06Z".parse().unwrap();
    let said =
        Envelope::new(Change::new("a", [1, 2])).metadata(metadata.clone()).occurred_at(occurred);
    store.execute_all([said, Change::new("a", [3]).into()]).await.unwrap();
    let history = history(store, &counter("a")).await;
    for event in &history[..2] {
        assert_eq!((&event.metadata, event.occurred_at), (&metadata, Some(occurred)));
    }
    assert_eq!((&history[2].metadata, history[2].occurred_at), (&Metadata::new(), None));
}

pub(crate) async fn concurrent_increments_are_all_counted(store: &EventStore) {
    let decisions = Arc::default();
    let tasks = (0..16).map(|_| {
        let (store, mut command) = (store.clone(), Change::new("contended", [1]));
        command.decisions = Arc::clone(&decisions);
        tokio::spawn(async move {
            for _ in 0..10 {
                // A command that loses to others too often says so; then it had no effect.
                while let Err(error) = store.execute(command.clone()).await {
                    assert!(
                        matches!(error, ExecuteError::Failed(Error::Conflict { .. })),
                        "{error}"
                    );
                }
            }
        })
    });
    join_all(tasks).await.into_iter().for_each(Result::unwrap);
    let loaded = load(store, "contended").await;
    assert_eq!(loaded.state, Counter { total: 160, changes: 160 });
    assert_eq!(loaded.version, Version::new(160));
    assert!(decisions.load(Ordering::Relaxed) >= 160);
}

pub(crate) async fn concurrent_lots_stay_whole(store: &EventStore) {
    let tasks = (0..8).map(|task| {
        let store = store.clone();
        tokio::spawn(async move {
            for _ in 0..10 {
                // The same counters in another order, and the log in between.
                let mut lot: Vec<_> = (0..6).map(|i| Change::new(i % 3, [task * 10 + i])).collect();
                lot.rotate_left(task as usize % 3);
                let outcomes = loop {
                    match store.execute_all(lot.clone()).await {
                        Ok(outcomes) => break outcomes,
                        Err(error) => assert!(matches!(error, Error::Conflict { .. }), "{error}"),
                    }
                };
                let positions: Vec<_> =
                    outcomes.iter().map(|o| o.as_ref().unwrap().position.get()).collect();
                assert!(positions.windows(2).all(|pair| pair[0] + 1 == pair[1]), "{positions:?}");
            }
        })
    });
    join_all(tasks).await.into_iter().for_each(Result::unwrap);
    let log = log(store).await;
    assert_sound(&log);
    assert_eq!(log.len(), 8 * 10 * 6);
    for key in ["0", "1", "2"] {
        let of_lots: i64 = (0..8).map(|task| 10 * (2 * task * 10)).sum::<i64>();
        let own: i64 = (0..6).filter(|i| (i % 3).to_string() == key).sum();
        assert_eq!(load(store, key).await.state.total, of_lots + 8 * 10 * own);
    }
}

/// What was decided on the state before is not what is recorded.
pub(crate) async fn a_command_that_lost_is_decided_again_on_the_new_state(store: &EventStore) {
    // Ten is there for one of them only: each takes eight, or is refused with what is left.
    for round in 0..10 {
        store.execute(Change::new(round, [10])).await.unwrap();
        let commands: Vec<_> = (0..6).map(|_| Change::new(round, [-8])).collect();
        let tasks = commands.iter().cloned().map(|command| {
            let store = store.clone();
            tokio::spawn(async move { store.execute(command).await })
        });
        let outcomes: Vec<_> = join_all(tasks).await.into_iter().map(Result::unwrap).collect();
        let taken = outcomes.iter().filter(|outcome| outcome.is_ok()).count();
        assert_eq!(taken, 1, "{outcomes:?}");
        for refused in outcomes.into_iter().filter_map(Result::err) {
            match refused {
                ExecuteError::Rejected(error) => assert_eq!(error, BelowZero { total: 2, by: -8 }),
                other => panic!("{other:?}"),
            }
        }
        assert_eq!(load(store, &round.to_string()).await.state.total, 2);
    }
}

/// Whether the store has the aggregate in its cache or not, and also after others appended.
pub(crate) async fn a_conditional_command_is_decided_at_its_version_only(store: &EventStore) {
    let at = |by, expected| Envelope::new(Change::new("a", [by])).expected_version(expected);
    fn conflict<T: std::fmt::Debug>(outcome: Result<T, ExecuteError<BelowZero>>) -> i64 {
        match outcome {
            Err(ExecuteError::Failed(Error::Conflict { stream, actual, .. })) => {
                assert_eq!(stream, counter("a"));
                actual.get()
            }
            other => panic!("no conflict: {other:?}"),
        }
    }
    let exact = |version| ExpectedVersion::Exact(Version::new(version));
    assert_eq!(conflict(store.execute(at(1, ExpectedVersion::Exists)).await), 0);
    assert_eq!(conflict(store.execute(at(1, exact(1))).await), 0);
    store.execute(at(1, ExpectedVersion::NoStream)).await.unwrap();
    assert_eq!(conflict(store.execute(at(1, ExpectedVersion::NoStream)).await), 1);
    let changed = NewEvent::of(&CounterEvent::Changed { by: 1 }).unwrap();
    store.append(Append::to(counter("a"), ExpectedVersion::Any, [changed])).await.unwrap();
    // What is in the cache is at version 1.
    assert_eq!(conflict(store.execute(at(1, exact(1))).await), 2);
    store.execute(at(1, exact(2)).idempotency_key("k")).await.unwrap();
    // What was done under a key is answered, whatever the version is now.
    assert!(store.execute(at(1, exact(2)).idempotency_key("k")).await.unwrap().replayed);
    // The commands of a lot build on each other.
    let outcomes = store.execute_all([at(1, exact(3)), at(1, exact(3)), at(1, exact(4))]).await;
    let outcomes: Vec<_> = outcomes.unwrap().into_iter().map(|outcome| outcome.is_ok()).collect();
    assert_eq!(outcomes, [true, false, true]);
    assert_eq!(log(store).await.len(), 5);

    let mut unit = store.begin().await.unwrap();
    assert_eq!(conflict(unit.execute(at(1, exact(4))).await), 5);
    unit.execute(at(1, exact(5))).await.unwrap();
    unit.commit().await.unwrap();
    assert_eq!(log(store).await.len(), 6);
}

pub(crate) async fn one_of_many_conditional_commands_wins(store: &EventStore) {
    store.execute(Change::new("a", [1])).await.unwrap();
    let expected = ExpectedVersion::Exact(Version::new(1));
    let commands = (0..16)
        .map(|_| store.execute(Envelope::new(Change::new("a", [1])).expected_version(expected)));
    let outcomes = join_all(commands).await;
    assert_eq!(outcomes.iter().filter(|outcome| outcome.is_ok()).count(), 1);
    assert_eq!(load(store, "a").await.version, Version::new(2));
}
