//! What commands, keys, snapshots and units of work know of streams that are not in use.

use std::{sync::atomic::Ordering, time::Duration};

use annals_eventstore::{
    Append, AsOf, Committed, Envelope, Error, EventStore, ExecuteError, StreamId, StreamState,
    Version,
};

use super::{ANY, counter};
use crate::conformance::support::{
    all,
    counter::{BelowZero, Change, Counter},
    event, events, history, log, one,
    snapshots::ByHand,
    stream,
};

const RETIRED: [StreamState; 2] = [StreamState::Deleted, StreamState::Archived];

/// Brings a stream out of use; what is refused then names it.
async fn retire(store: &EventStore, stream: &StreamId, state: StreamState) {
    match state {
        StreamState::Archived => store.archive_stream(stream, ANY).await.unwrap(),
        _ => store.delete_stream(stream, ANY).await.unwrap(),
    };
}

fn assert_refused(error: &Error, stream: &StreamId, state: StreamState) {
    let named = match (error, state) {
        (Error::StreamDeleted { stream }, StreamState::Deleted) => stream,
        (Error::StreamArchived { stream }, StreamState::Archived) => stream,
        _ => panic!("{stream} is {state}: {error:?}"),
    };
    assert_eq!(named, stream);
}

pub(crate) async fn a_command_on_a_stream_that_is_not_live_is_decided_once(store: &EventStore) {
    for key in ["deleted", "archived"] {
        store.execute(Change::new(key, [5])).await.unwrap();
    }
    store.delete_stream(&counter("deleted"), ANY).await.unwrap();
    store.archive_stream(&counter("archived"), ANY).await.unwrap();
    // The aggregate is as before its first event.
    let rejected = store.execute(Change::new("deleted", [-5])).await.unwrap_err();
    assert!(matches!(rejected, ExecuteError::Rejected(BelowZero { total: 0, by: -5 })));
    let command = Change::new("deleted", [5]);
    let decisions = command.decisions.clone();
    match store.execute(Envelope::new(command).idempotency_key("key")).await.unwrap_err() {
        ExecuteError::Failed(Error::StreamDeleted { stream }) => {
            assert_eq!(stream, counter("deleted"));
        }
        error => panic!("{error:?}"),
    }
    assert_eq!(decisions.load(Ordering::Relaxed), 1);
    // Nothing is decided on what is not read.
    let command = Change::new("archived", [5]);
    let decisions = command.decisions.clone();
    match store.execute(Envelope::new(command).idempotency_key("other")).await.unwrap_err() {
        ExecuteError::Failed(Error::StreamArchived { stream }) => {
            assert_eq!(stream, counter("archived"));
        }
        error => panic!("{error:?}"),
    }
    // Nothing is decided on what is not read; a state from the cache was read before.
    assert!(decisions.load(Ordering::Relaxed) <= 1);
}

pub(crate) async fn a_command_on_a_dead_stream_fails_alone(store: &EventStore) {
    for (round, state) in RETIRED.iter().cycle().take(4).enumerate() {
        let key = |name: &str| format!("{name} {round}");
        let (dead, other) = (counter(&key("dead")), counter(&key("other")));
        let kept = || Envelope::new(Change::new(key("dead"), [5])).idempotency_key(key("kept"));
        store.execute(kept()).await.unwrap();
        for name in ["live", "other"] {
            store.execute(Change::new(key(name), [5])).await.unwrap();
        }
        // In the first rounds, what is cached still says that they are live.
        retire(store, &dead, *state).await;
        retire(store, &other, RETIRED[round / 2]).await;
        if round >= 2 {
            drop(store.load::<Counter>(key("dead")).await);
        }
        let end = store.safe_position().await.unwrap();
        let lot = [
            Envelope::new(Change::new(key("live"), [1])),
            Change::new(key("dead"), [1]).into(),
            kept(),
            Change::new(key("dead"), [-1]).into(),
            Change::new(key("other"), [1, 1]).into(),
            Change::new(key("new"), [2]).into(),
            Envelope::new(Change::new(key("dead"), [3])).idempotency_key(key("free")),
            Change::new(key("live"), [1, 1]).into(),
            Change::new(key("dead"), []).into(),
        ];
        let outcomes = store.execute_all(lot).await.unwrap();
        let refused = |index: usize, stream: &StreamId, state| match &outcomes[index] {
            Err(ExecuteError::Failed(error)) => assert_refused(error, stream, state),
            outcome => panic!("{index}: {outcome:?}"),
        };
        refused(1, &dead, *state);
        refused(4, &other, RETIRED[round / 2]);
        refused(6, &dead, *state);
        assert!(outcomes[2].as_ref().unwrap().replayed);
        match state {
            StreamState::Archived => [3, 8].map(|index| refused(index, &dead, *state)),
            // The aggregate is as before its first event.
            _ => [
                assert!(matches!(
                    outcomes[3],
                    Err(ExecuteError::Rejected(BelowZero { total: 0, by: -1 }))
                )),
                assert_eq!(outcomes[8].as_ref().unwrap().version, Version::NONE),
            ],
        };
        let versions = [0, 5, 7].map(|index| outcomes[index].as_ref().unwrap().version.get());
        assert_eq!(versions, [2, 1, 4]);
        let recorded = all(store.read_all(end)).await.unwrap();
        let streams: Vec<_> = recorded.iter().map(|event| event.stream.key()).collect();
        assert_eq!(streams, ["live", "new", "live", "live"].map(key));

        store.restore_stream(&dead).await.unwrap();
        let lot = [Envelope::new(Change::new(key("dead"), [3])).idempotency_key(key("free"))];
        let outcomes = store.execute_all(lot).await.unwrap();
        assert!(!outcomes[0].as_ref().unwrap().replayed, "what failed leaves its key free");
        assert_eq!(store.load::<Counter>(key("dead")).await.unwrap().unwrap().state.total, 8);
    }
}

pub(crate) async fn a_recorded_key_answers_also_when_its_stream_is_archived(store: &EventStore) {
    store.append(one(stream("b"), 1)).await.unwrap();
    let append = || {
        Append::to(stream("a"), ANY, events(0..2))
            .and(stream("b"), ANY, [event(2)])
            .idempotency_key("key")
    };
    let first = store.append(append()).await.unwrap();
    store.archive_stream(&stream("a"), ANY).await.unwrap();
    store.delete_stream(&stream("b"), ANY).await.unwrap();
    let again = store.append(append()).await.unwrap();
    assert!(again.replayed);
    assert_eq!(again.versions, first.versions);
    assert_eq!(again.first_position, first.first_position);
}

pub(crate) async fn a_command_under_a_recorded_key_needs_no_stream(store: &EventStore) {
    for state in RETIRED {
        let key = state.to_string();
        let command = || Envelope::new(Change::new(&key, [5, 1])).idempotency_key(&key);
        let first = store.execute(command()).await.unwrap();
        retire(store, &counter(&key), state).await;
        let replayed = Committed { replayed: true, ..first };
        assert_eq!(store.execute(command()).await.unwrap(), replayed);
        // Once more, when it is known that the stream is not in use.
        store.execute(Change::new(&key, [1])).await.unwrap_err();
        assert_eq!(store.execute(command()).await.unwrap(), replayed);
        let other = Envelope::new(Change::new(&key, [6])).idempotency_key(&key);
        let error = store.execute(other).await.unwrap_err();
        assert!(matches!(error, ExecuteError::Failed(Error::KeyReused { .. })), "{error:?}");
    }
    // On a deleted stream a command without events is one on a new stream.
    let command =
        || Envelope::new(Change::new(StreamState::Deleted, [])).idempotency_key("no events");
    let first = store.execute(command()).await.unwrap();
    assert_eq!((first.version, first.events), (Version::NONE, 0));
    let again = store.execute(command()).await.unwrap();
    assert_eq!(again, Committed { replayed: true, ..first });
}

pub(crate) async fn what_is_cached_knows_what_became_of_its_stream(store: &EventStore) {
    for state in RETIRED {
        let key = state.to_string();
        let id = counter(&key);
        for round in 1..=2 {
            store.execute(Change::new(&key, [5])).await.unwrap();
            store.execute(Change::new("live", [1])).await.unwrap();
            retire(store, &id, state).await;
            let before = log(store).await;
            let loaded = store.load::<Counter>(&key).await;
            let nothing = store.execute(Change::new(&key, [])).await;
            let rejected = store.execute(Change::new(&key, [-1])).await;
            match state {
                StreamState::Archived => {
                    assert_refused(&loaded.unwrap_err(), &id, state);
                    for outcome in [nothing, rejected] {
                        match outcome.unwrap_err() {
                            ExecuteError::Failed(error) => assert_refused(&error, &id, state),
                            error => panic!("{error:?}"),
                        }
                    }
                }
                _ => {
                    assert_eq!(loaded.unwrap(), None);
                    assert_eq!(nothing.unwrap().version, Version::NONE);
                    let total = ExecuteError::Rejected(BelowZero { total: 0, by: -1 });
                    assert_eq!(rejected.unwrap_err().to_string(), total.to_string());
                }
            }
            let refused = store.execute(Change::new(&key, [1])).await.unwrap_err();
            match refused {
                ExecuteError::Failed(error) => assert_refused(&error, &id, state),
                error => panic!("{error:?}"),
            }
            assert_eq!(log(store).await, before, "nothing is recorded");

            store.restore_stream(&id).await.unwrap();
            let loaded = store.load::<Counter>(&key).await.unwrap().unwrap();
            assert_eq!((loaded.state.total, loaded.version.get()), (5 * round, round));
        }
        // What was decided on a cached state is decided again on what is there.
        retire(store, &id, state).await;
        let taken = store.execute(Change::new(&key, [-10])).await.unwrap_err();
        match taken {
            ExecuteError::Rejected(BelowZero { total: 0, by: -10 })
                if state == StreamState::Deleted => {}
            ExecuteError::Failed(error) if state == StreamState::Archived => {
                assert_refused(&error, &id, state);
            }
            error => panic!("{error:?}"),
        }
    }
}

pub(crate) async fn a_snapshot_does_not_bring_a_stream_back(store: &EventStore) {
    for state in RETIRED {
        let key = state.to_string();
        let id = counter(&key);
        for by in 1..=3 {
            store.execute(Change::new(&key, [by])).await.unwrap();
            store.snapshot::<ByHand>(&key).await.unwrap();
        }
        let whole = store.load::<ByHand>(&key).await.unwrap().unwrap();
        retire(store, &id, state).await;
        let then = AsOf::Version(Version::new(2));
        let answers = [
            store.load::<ByHand>(&key).await.map(|loaded| loaded.is_some()),
            store.load_as_of::<ByHand>(&key, then).await.map(|loaded| loaded.is_some()),
            store.snapshot::<ByHand>(&key).await.map(|version| version.is_some()),
        ];
        let archived = store.load_archived::<ByHand>(&key).await.unwrap();
        match state {
            StreamState::Archived => {
                answers.into_iter().for_each(|it| assert_refused(&it.unwrap_err(), &id, state));
                assert_eq!(archived.as_ref(), Some(&whole));
            }
            _ => {
                answers.into_iter().for_each(|it| assert!(!it.unwrap()));
                assert_eq!(archived, None);
            }
        }
        store.restore_stream(&id).await.unwrap();
        assert_eq!(store.load::<ByHand>(&key).await.unwrap().unwrap(), whole);
    }
}

pub(crate) async fn a_unit_knows_what_became_of_its_streams(store: &EventStore) {
    for state in RETIRED {
        let key = state.to_string();
        let id = counter(&key);
        store.execute(Change::new(&key, [5])).await.unwrap();

        // Between the unit's load and its commit.
        let mut unit = store.begin().await.unwrap();
        assert!(unit.load::<Counter>(&key).await.unwrap().is_some());
        unit.append(one(stream(&key), 1)).await.unwrap();
        retire(store, &id, state).await;
        let before = log(store).await;
        assert_refused(&unit.commit().await.unwrap_err(), &id, state);
        let mut unit = store.begin().await.unwrap();
        unit.append(Append::to(id.clone(), ANY, [event(1)]).and(stream(&key), ANY, [event(1)]))
            .await
            .unwrap();
        assert_refused(&unit.commit().await.unwrap_err(), &id, state);

        // Before it.
        let mut unit = store.begin().await.unwrap();
        match state {
            StreamState::Archived => {
                assert_refused(&unit.load::<Counter>(&key).await.unwrap_err(), &id, state);
                match unit.execute(Change::new(&key, [1])).await.unwrap_err() {
                    ExecuteError::Failed(error) => assert_refused(&error, &id, state),
                    error => panic!("{error:?}"),
                }
                unit.rollback().await.unwrap();
                assert_eq!(log(store).await, before, "nothing is recorded");
            }
            _ => {
                assert!(unit.load::<Counter>(&key).await.unwrap().is_none());
                unit.execute(Change::new(&key, [1])).await.unwrap();
                unit.append(one(stream(&key), 1)).await.unwrap();
                assert_refused(&unit.commit().await.unwrap_err(), &id, state);
                assert_eq!(log(store).await, before, "nothing is recorded");
                // What only rests on there being none is recorded.
                let mut unit = store.begin().await.unwrap();
                assert!(unit.load::<Counter>(&key).await.unwrap().is_none());
                unit.append(one(stream(&key), 1)).await.unwrap();
                unit.commit().await.unwrap();
                assert_eq!(history(store, &stream(&key)).await.len(), 1);
            }
        }
    }
}

pub(crate) async fn removed_keys_are_new_again(store: &EventStore) {
    for number in 0..10 {
        store.append(one(stream("a"), number).idempotency_key(number.to_string())).await.unwrap();
    }
    let day = Duration::from_secs(86_400);
    assert_eq!(store.remove_idempotency_keys(day).await.unwrap(), 0);
    assert!(store.append(one(stream("a"), 3).idempotency_key("3")).await.unwrap().replayed);
    tokio::time::sleep(Duration::from_millis(20)).await;
    assert_eq!(store.remove_idempotency_keys(Duration::from_millis(1)).await.unwrap(), 10);
    assert_eq!(store.remove_idempotency_keys(Duration::from_millis(1)).await.unwrap(), 0);
    // A repetition that comes too late is a new append.
    assert!(!store.append(one(stream("a"), 3).idempotency_key("3")).await.unwrap().replayed);
    assert_eq!(log(store).await.len(), 11);
}
