//! One key, one outcome.

use annals_eventstore::{
    Append, Committed, Envelope, Error, EventStore, ExecuteError, ExpectedVersion, NewEvent,
    Payload, Position, Version,
};
use futures::future::join_all;

use super::support::{
    assert_sound,
    counter::{BelowZero, Change, load},
    event, events, json, log, numbers, one, stream,
};

pub(crate) async fn the_same_append_again_returns_the_recorded_outcome(store: &EventStore) {
    let append = || {
        Append::to(stream("a"), ExpectedVersion::NoStream, events(1..=2))
            .and(stream("b"), ExpectedVersion::Any, events(3..=3))
            .idempotency_key("request 1")
    };
    store.append(one(stream("b"), 0)).await.unwrap();
    let first = store.append(append()).await.unwrap();
    assert!(!first.replayed);
    store.append(one(stream("a"), 4)).await.unwrap();
    store.append(one(stream("b"), 5)).await.unwrap();
    // Although a exists by now, and both have moved on.
    let mut again = store.append(append()).await.unwrap();
    assert!(again.replayed);
    again.replayed = false;
    assert_eq!(again, first);
    assert_eq!(numbers(&log(store).await), [0, 1, 2, 3, 4, 5]);
}

pub(crate) async fn another_append_under_the_key_is_refused(store: &EventStore) {
    let key = |append: Append| append.idempotency_key("request 1");
    store.append(key(one(stream("a"), 1))).await.unwrap();
    let renamed = NewEvent::raw("renamed", 1, Payload::from_json(r#"{"number":1}"#).unwrap());
    for other in [
        one(stream("a"), 2),
        one(stream("b"), 1),
        Append::to(stream("a"), ExpectedVersion::Any, events([1, 1])),
        one(stream("a"), 1).and(stream("b"), ExpectedVersion::Any, [event(1)]),
        Append::to(stream("a"), ExpectedVersion::Any, [renamed]),
    ] {
        match store.append(key(other)).await {
            Err(error @ Error::KeyReused { .. }) => {
                assert!(error.to_string().contains("request 1") && !error.is_retryable());
            }
            other => panic!("not refused: {other:?}"),
        }
    }
    let command = Envelope::new(Change::new("a", [1])).idempotency_key("request 1");
    let refused = store.execute(command).await;
    assert!(matches!(refused, Err(ExecuteError::Failed(Error::KeyReused { .. }))));
    assert_eq!(log(store).await.len(), 1);
}

pub(crate) async fn concurrent_appends_under_one_key_are_recorded_once(store: &EventStore) {
    for round in 0..10 {
        let tasks = (0..20).map(|_| {
            let store = store.clone();
            let append = Append::to(
                stream("a"),
                ExpectedVersion::Exact(Version::new(round)),
                [event(round)],
            );
            tokio::spawn(async move {
                store.append(append.idempotency_key(format!("key {round}"))).await
            })
        });
        let outcomes: Vec<_> =
            join_all(tasks).await.into_iter().map(|o| o.unwrap().unwrap()).collect();
        assert_eq!(outcomes.iter().filter(|appended| !appended.replayed).count(), 1);
        for appended in &outcomes {
            assert_eq!(appended.versions, [(stream("a"), Version::new(round + 1))]);
            assert_eq!(appended.first_position, outcomes[0].first_position);
            assert_eq!(appended.last_position, outcomes[0].last_position);
        }
    }
    assert!(numbers(&log(store).await).into_iter().eq(0..10));
}

pub(crate) async fn of_different_appends_under_one_key_one_is_recorded(store: &EventStore) {
    for round in 0..10 {
        let tasks = (0..10).map(|number| {
            let store = store.clone();
            // To streams of their own, so that nothing but the key keeps them apart.
            let append = one(stream(format!("{round} {number}")), number);
            tokio::spawn(async move {
                store.append(append.idempotency_key(format!("key {round}"))).await
            })
        });
        let outcomes: Vec<_> = join_all(tasks).await.into_iter().map(Result::unwrap).collect();
        assert_eq!(outcomes.iter().filter(|outcome| outcome.is_ok()).count(), 1, "{outcomes:?}");
        for refused in outcomes.iter().filter_map(|outcome| outcome.as_ref().err()) {
            assert!(matches!(refused, Error::KeyReused { .. }), "{refused}");
        }
    }
    assert_eq!(log(store).await.len(), 10);
}

/// Appends that are sent together have outcomes of their own, and so are they remembered.
pub(crate) async fn outcomes_beside_refused_ones_are_remembered_right(store: &EventStore) {
    store.append(one(stream("taken"), -1)).await.unwrap();
    let append = |number: i64| {
        let events = events([number; 3]);
        let append = match number % 3 {
            0 => Append::to(stream("taken"), ExpectedVersion::NoStream, events),
            _ => Append::to(stream(number), ExpectedVersion::NoStream, events),
        };
        append.idempotency_key(format!("key {number}"))
    };
    let tasks = (0..120).map(|number| {
        let store = store.clone();
        tokio::spawn(async move { store.append(append(number)).await })
    });
    let outcomes = join_all(tasks).await.into_iter().map(Result::unwrap);
    for (number, outcome) in (0..).zip(outcomes) {
        if number % 3 == 0 {
            assert!(matches!(outcome, Err(Error::Conflict { .. })), "{outcome:?}");
            continue;
        }
        let first = outcome.unwrap();
        let again = store.append(append(number)).await.unwrap();
        assert!(again.replayed);
        assert_eq!(again.first_position, first.first_position);
        assert_eq!(again.last_position, first.last_position);
        assert_eq!(again.versions, first.versions);
    }
}

pub(crate) async fn a_failed_append_leaves_its_key_free(store: &EventStore) {
    let append =
        |expected| Append::to(stream("a"), expected, [event(1)]).idempotency_key("request 1");
    let conflict = store.append(append(ExpectedVersion::Exists)).await;
    assert!(matches!(conflict, Err(Error::Conflict { .. })));
    assert!(!store.append(append(ExpectedVersion::NoStream)).await.unwrap().replayed);
}

fn replayed(mut committed: Committed) -> Committed {
    committed.replayed = true;
    committed
}

fn keyed(counter: &str, by: &[i64], key: &str) -> Envelope<Change> {
    Envelope::new(Change::new(counter, by)).idempotency_key(key)
}

pub(crate) async fn the_same_command_again_returns_the_recorded_outcome(store: &EventStore) {
    store.execute(Change::new("a", [10])).await.unwrap();
    let first = store.execute(keyed("a", &[-6, 1], "withdrawal")).await.unwrap();
    store.execute(Change::new("a", [1])).await.unwrap();
    // Decided anew it is rejected: that is not the outcome.
    let command = keyed("a", &[-6, 1], "withdrawal");
    store.execute(Change::new("a", [-5])).await.unwrap();
    let again = store.execute(command).await.unwrap();
    assert!(!first.replayed && again.replayed);
    assert_eq!(again, replayed(first.clone()));
    let log = log(store).await;
    assert_eq!(log.len(), 5);
    assert_eq!(
        (first.version, first.position, first.events),
        (Version::new(3), log[2].position, 2)
    );
}

pub(crate) async fn another_command_under_the_key_is_refused(store: &EventStore) {
    store.execute(keyed("a", &[1], "key")).await.unwrap();
    for other in [keyed("a", &[2], "key"), keyed("b", &[1], "key"), keyed("a", &[], "key")] {
        let refused = store.execute(other).await;
        assert!(
            matches!(refused, Err(ExecuteError::Failed(Error::KeyReused { .. }))),
            "{refused:?}"
        );
    }
    let as_append = store.append(one(stream("a"), 1).idempotency_key("key")).await;
    assert!(matches!(as_append, Err(Error::KeyReused { .. })), "{as_append:?}");
    assert_eq!(log(store).await.len(), 1);
}

pub(crate) async fn a_command_without_events_is_remembered(store: &EventStore) {
    store.execute(Change::new("a", [1])).await.unwrap();
    let first = store.execute(keyed("a", &[], "nothing")).await.unwrap();
    assert_eq!(
        (first.version, first.position, first.events),
        (Version::new(1), Position::START, 0)
    );
    store.execute(Change::new("a", [1])).await.unwrap();
    let again = store.execute(keyed("a", &[], "nothing")).await.unwrap();
    assert_eq!(again, replayed(first));
    // Also on a stream that does not exist.
    let nowhere = store.execute(keyed("b", &[], "nowhere")).await.unwrap();
    assert!(store.execute(keyed("b", &[], "nowhere")).await.unwrap().replayed);
    assert_eq!(nowhere.version, Version::NONE);
    assert_eq!(log(store).await.len(), 2);
}

pub(crate) async fn a_rejected_command_leaves_its_key_free(store: &EventStore) {
    let rejected = store.execute(keyed("a", &[-1], "key")).await;
    assert!(matches!(rejected, Err(ExecuteError::Rejected(BelowZero { .. }))));
    store.execute(Change::new("a", [1])).await.unwrap();
    assert!(!store.execute(keyed("a", &[-1], "key")).await.unwrap().replayed);
    assert_eq!(load(store, "a").await.state.total, 0);
}

pub(crate) async fn a_key_twice_in_a_lot_counts_once(store: &EventStore) {
    let outcomes = store
        .execute_all([
            keyed("a", &[1, 2], "one"),
            keyed("b", &[5], "two"),
            keyed("a", &[1, 2], "one"),
            keyed("a", &[3], "one"),
            keyed("b", &[5], "one"),
            keyed("a", &[], "three"),
            keyed("a", &[], "three"),
            Change::new("a", [4]).into(),
        ])
        .await
        .unwrap();
    let first = outcomes[0].as_ref().unwrap().clone();
    assert_eq!(*outcomes[2].as_ref().unwrap(), replayed(first));
    for refused in &outcomes[3..5] {
        assert!(
            matches!(refused, Err(ExecuteError::Failed(Error::KeyReused { .. }))),
            "{refused:?}"
        );
    }
    assert!(!outcomes[5].as_ref().unwrap().replayed && outcomes[6].as_ref().unwrap().replayed);
    assert_eq!(outcomes[7].as_ref().unwrap().version, Version::new(3));
    let totals = [load(store, "a").await.state.total, load(store, "b").await.state.total];
    assert_eq!(totals, [7, 5]);
}

pub(crate) async fn a_lot_known_in_part_records_the_rest(store: &EventStore) {
    let lot = |keys: &[i64]| -> Vec<_> {
        let command =
            |key: &i64| keyed(["a", "b"][*key as usize % 2], &[*key], &format!("row {key}"));
        keys.iter().map(command).collect()
    };
    let firsts = store.execute_all(lot(&[1, 2, 4])).await.unwrap();
    let outcomes = store.execute_all(lot(&[1, 2, 3, 4, 5, 6])).await.unwrap();
    let replayed: Vec<_> = outcomes.iter().map(|o| o.as_ref().unwrap().replayed).collect();
    assert_eq!(replayed, [true, true, false, true, false, false]);
    for (first, again) in [(0, 0), (1, 1), (2, 3)] {
        let (first, again) = (firsts[first].as_ref().unwrap(), outcomes[again].as_ref().unwrap());
        assert_eq!((first.version, first.position), (again.version, again.position));
    }
    let log = log(store).await;
    assert_sound(&log);
    assert_eq!(log.len(), 6);
    let all = store.execute_all(lot(&[1, 2, 3, 4, 5, 6])).await.unwrap();
    assert!(all.iter().all(|outcome| outcome.as_ref().unwrap().replayed));
    for (known, event) in all[2..].iter().zip([3, 2, 4, 5]) {
        let known = known.as_ref().unwrap();
        assert_eq!((known.position, known.version), (log[event].position, log[event].version));
    }
}

pub(crate) async fn concurrent_commands_under_one_key_are_recorded_once(store: &EventStore) {
    for round in 0..10 {
        let tasks = (0..16).map(|_| {
            let store = store.clone();
            tokio::spawn(
                async move { store.execute(keyed("a", &[1], &format!("key {round}"))).await },
            )
        });
        let outcomes: Vec<_> =
            join_all(tasks).await.into_iter().map(|o| o.unwrap().unwrap()).collect();
        assert_eq!(outcomes.iter().filter(|committed| !committed.replayed).count(), 1);
        assert!(outcomes.iter().all(|committed| committed.position == outcomes[0].position));
    }
    assert_eq!(load(store, "a").await.state.total, 10);
}

pub(crate) async fn lots_that_meet_under_their_keys_are_all_answered(store: &EventStore) {
    for round in 0..10 {
        let (a, b) = (format!("a{round}"), format!("b{round}"));
        for name in [&a, &b] {
            store.execute(Change::new(name, [10])).await.unwrap();
        }
        // It cannot be done twice: who comes second must be told that it is done.
        let lot = || {
            [&a, &b].map(|name| {
                Envelope::new(Change::new(name, [-10])).idempotency_key(format!("empty {name}"))
            })
        };
        let all = join_all((0..3).map(|_| store.execute_all(lot()))).await;
        for outcomes in all {
            for outcome in outcomes.unwrap() {
                assert_eq!(outcome.unwrap().version, Version::new(2));
            }
        }
    }
    assert_eq!(log(store).await.len(), 40);
}

pub(crate) async fn keys_have_a_form(store: &EventStore) {
    for key in ["", "a\nb", &"x".repeat(256)] {
        let append = store.append(one(stream("a"), 1).idempotency_key(key)).await;
        assert!(matches!(append, Err(Error::InvalidAppend { .. })), "{key:?}: {append:?}");
        let lot = [keyed("a", &[1], key), keyed("a", &[1], "good")];
        let outcomes = store.execute_all(lot).await.unwrap();
        assert!(matches!(outcomes[0], Err(ExecuteError::Failed(Error::InvalidAppend { .. }))));
        assert!(outcomes[1].is_ok(), "{outcomes:?}");
    }
    assert_eq!(load(store, "a").await.state.total, 1);
}

/// A map may be written in another order when the append is built again, after a restart.
pub(crate) async fn a_key_is_bound_to_content_not_to_its_spelling(store: &EventStore) {
    let append = |payload| {
        let append = Append::to(stream("a"), ExpectedVersion::Any, [json(payload)]);
        append.idempotency_key("key")
    };
    store.append(append(r#"{"a":1,"b":2}"#)).await.unwrap();
    assert!(store.append(append(r#"{"b": 2, "a": 1}"#)).await.unwrap().replayed);
}
