//! Streams that are deleted, archived and restored; idempotency keys that are removed.

use std::{sync::atomic::Ordering, time::Duration};

use annals_eventstore::{
    Append, AsOf, Committed, Envelope, Error, EventQuery, EventStore, ExecuteError,
    ExpectedVersion, Position, StreamId, StreamInfo, StreamState, Version,
};
use rand::{Rng, SeedableRng, rngs::StdRng};

use super::support::{
    all,
    counter::{BelowZero, Change, Counter},
    event, events, history, log, numbers, one,
    snapshots::ByHand,
    stream,
};

const ANY: ExpectedVersion = ExpectedVersion::Any;

fn counter(key: &str) -> StreamId {
    StreamId::new("counter", key).unwrap()
}

async fn state(store: &EventStore, stream: &StreamId) -> Option<StreamState> {
    store.stream_info(stream).await.unwrap().map(|info: StreamInfo| info.state)
}

pub(crate) async fn a_deleted_stream_is_as_if_it_did_not_exist(store: &EventStore) {
    for key in ["a", "b"] {
        store.execute(Change::new(key, [1, 2])).await.unwrap();
    }
    let a = counter("a");
    let before = log(store).await;
    let version = store.delete_stream(&a, ExpectedVersion::Exact(Version::new(2))).await.unwrap();
    assert_eq!(version, Version::new(2));
    let info = store.stream_info(&a).await.unwrap().unwrap();
    assert_eq!((info.version, info.state), (version, StreamState::Deleted));
    assert_eq!(state(store, &counter("never")).await, None);

    assert_eq!(store.load::<Counter>("a").await.unwrap(), None);
    assert_eq!(store.load_archived::<Counter>("a").await.unwrap(), None);
    let then = AsOf::Position(before[1].position);
    assert_eq!(store.load_as_of::<Counter>("a", then).await.unwrap(), None);
    assert!(history(store, &a).await.is_empty());
    let with_archived = EventQuery::stream(&a).include_archived();
    assert!(all(store.read(with_archived)).await.unwrap().is_empty());
    assert!(store.load::<Counter>("b").await.unwrap().is_some());
    // What has happened has happened.
    assert_eq!(log(store).await, before);
    assert_eq!(all(store.read_category("counter", Position::START)).await.unwrap(), before);

    assert_eq!(store.restore_stream(&a).await.unwrap(), version);
    assert_eq!(store.load::<Counter>("a").await.unwrap().unwrap().state.total, 3);
    assert_eq!(history(store, &a).await, before[..2]);
    let committed = store.execute(Change::new("a", [3])).await.unwrap();
    assert_eq!(committed.version, Version::new(3));
}

pub(crate) async fn an_archived_stream_is_read_on_request_only(store: &EventStore) {
    for number in 0..3 {
        for key in ["a", "b"] {
            store.execute(Change::new(key, [number])).await.unwrap();
        }
    }
    let a = counter("a");
    let before = log(store).await;
    let of = |id: &StreamId| before.iter().filter(|e| e.stream == *id).cloned().collect::<Vec<_>>();
    store.archive_stream(&a, ANY).await.unwrap();
    assert_eq!(state(store, &a).await, Some(StreamState::Archived));

    // Not by its name, unless asked for.
    let refused = |error: Error| match &error {
        Error::StreamArchived { stream } => {
            assert_eq!(*stream, a);
            assert!(!error.is_retryable());
        }
        _ => panic!("{error:?}"),
    };
    refused(store.load::<Counter>("a").await.unwrap_err());
    let then = AsOf::Version(Version::new(1));
    refused(store.load_as_of::<Counter>("a", then).await.unwrap_err());
    refused(all(store.read_stream(&a, Version::NONE)).await.unwrap_err());
    refused(all(store.read(EventQuery::stream(&a).backward())).await.unwrap_err());
    let loaded = store.load_archived::<Counter>("a").await.unwrap().unwrap();
    assert_eq!((loaded.state.total, loaded.version), (3, Version::new(3)));
    assert_eq!(all(store.read(EventQuery::stream(&a).include_archived())).await.unwrap(), of(&a));
    // Others are not held up by it, and can be loaded alike.
    assert_eq!(store.load_archived::<Counter>("b").await.unwrap(), store.load("b").await.unwrap());
    assert_eq!(history(store, &counter("b")).await, of(&counter("b")));

    // Not in the log, unless asked for; then in its places, as it was.
    assert_eq!(log(store).await, of(&counter("b")));
    let feed = store.read_page(None, Position::START, before[5].position, 100).await.unwrap();
    assert_eq!(feed, of(&counter("b")));
    for size in [1, 2, 100] {
        let whole = EventQuery::log().include_archived().page_size(size);
        assert_eq!(all(store.read(whole.clone())).await.unwrap(), before);
        let back = all(store.read(whole.backward())).await.unwrap();
        assert!(back.iter().rev().eq(&before));
    }
    assert_eq!(store.safe_position().await.unwrap(), before[5].position);

    store.restore_stream(&a).await.unwrap();
    assert_eq!(log(store).await, before);
    assert_eq!(history(store, &a).await, of(&a));
    assert_eq!(store.execute(Change::new("a", [3])).await.unwrap().version, Version::new(4));
}

pub(crate) async fn what_is_not_live_takes_no_events(store: &EventStore) {
    for key in ["deleted", "archived"] {
        store.append(one(stream(key), 1)).await.unwrap();
    }
    store.delete_stream(&stream("deleted"), ANY).await.unwrap();
    store.archive_stream(&stream("archived"), ANY).await.unwrap();
    let end = store.safe_position().await.unwrap();
    let exact = |version| ExpectedVersion::Exact(Version::new(version));
    for expected in [ANY, ExpectedVersion::NoStream, ExpectedVersion::Exists, exact(1), exact(7)] {
        for key in ["deleted", "archived"] {
            let error =
                store.append(Append::to(stream(key), expected, [event(2)])).await.unwrap_err();
            match &error {
                Error::StreamDeleted { stream: named } if key == "deleted" => {
                    assert_eq!(*named, stream(key));
                }
                Error::StreamArchived { stream: named } if key == "archived" => {
                    assert_eq!(*named, stream(key));
                }
                _ => panic!("{key}, expected {expected}: {error:?}"),
            }
            assert!(!error.is_retryable());
            assert!(error.to_string().contains("restore"), "{error}");
        }
    }
    assert_eq!(store.safe_position().await.unwrap(), end, "a refused append draws no position");
}

pub(crate) async fn one_dead_stream_refuses_the_whole_append(store: &EventStore) {
    for key in ["a", "b", "c"] {
        store.append(one(stream(key), 1)).await.unwrap();
    }
    store.archive_stream(&stream("c"), ANY).await.unwrap();
    let append = ["a", "b", "c", "new"].iter().fold(None::<Append>, |append, key| {
        Some(match append {
            None => one(stream(key), 2),
            Some(append) => append.and(stream(key), ANY, [event(2)]),
        })
    });
    match store.append(append.unwrap().idempotency_key("key")).await.unwrap_err() {
        Error::StreamArchived { stream: named } => assert_eq!(named, stream("c")),
        error => panic!("{error:?}"),
    }
    assert_eq!(numbers(&log(store).await), [1, 1]);
    assert_eq!(state(store, &stream("new")).await, None);
    // Appends that travel together are not touched by one that is refused; its key stays free.
    let appends = ["a", "c", "b", "c", "new"].map(|key| store.append(one(stream(key), 3)));
    let outcomes = futures::future::join_all(appends).await;
    let recorded: Vec<_> = outcomes.iter().map(Result::is_ok).collect();
    assert_eq!(recorded, [true, false, true, false, true]);
    let again = store.append(one(stream("a"), 4).idempotency_key("key")).await.unwrap();
    assert!(!again.replayed);
}

pub(crate) async fn a_change_of_state_checks_the_version(store: &EventStore) {
    store.append(Append::to(stream("a"), ANY, events(0..3))).await.unwrap();
    let exact = |version| ExpectedVersion::Exact(Version::new(version));
    let conflict = |error: Error| match error {
        Error::Conflict { stream, expected, actual } => (stream, expected, actual.get()),
        error => panic!("{error:?}"),
    };
    for wrong in [ExpectedVersion::NoStream, exact(2), exact(4)] {
        let error = store.delete_stream(&stream("a"), wrong).await.unwrap_err();
        assert_eq!(conflict(error), (stream("a"), wrong, 3));
        let error = store.archive_stream(&stream("a"), wrong).await.unwrap_err();
        assert_eq!(conflict(error), (stream("a"), wrong, 3));
    }
    assert_eq!(state(store, &stream("a")).await, Some(StreamState::Live));
    for right in [ANY, ExpectedVersion::Exists, exact(3)] {
        store.delete_stream(&stream("a"), right).await.unwrap();
        store.restore_stream(&stream("a")).await.unwrap();
        store.archive_stream(&stream("a"), right).await.unwrap();
        store.restore_stream(&stream("a")).await.unwrap();
    }
    // A stream without events has no life.
    let none = (stream("b"), ExpectedVersion::Exists, 0);
    assert_eq!(conflict(store.delete_stream(&stream("b"), ANY).await.unwrap_err()), none);
    assert_eq!(conflict(store.archive_stream(&stream("b"), ANY).await.unwrap_err()), none);
    assert_eq!(conflict(store.restore_stream(&stream("b")).await.unwrap_err()), none);
    store.append(one(stream("b"), 1)).await.unwrap();
}

pub(crate) async fn the_operations_can_be_repeated(store: &EventStore) {
    store.append(Append::to(stream("a"), ANY, events(0..3))).await.unwrap();
    let whole = || all(store.read(EventQuery::log().include_archived()));
    let before = whole().await.unwrap();
    for _ in 0..3 {
        assert_eq!(store.delete_stream(&stream("a"), ANY).await.unwrap(), Version::new(3));
        assert_eq!(state(store, &stream("a")).await, Some(StreamState::Deleted));
    }
    for _ in 0..3 {
        assert_eq!(store.restore_stream(&stream("a")).await.unwrap(), Version::new(3));
        assert_eq!(state(store, &stream("a")).await, Some(StreamState::Live));
    }
    for _ in 0..3 {
        assert_eq!(store.archive_stream(&stream("a"), ANY).await.unwrap(), Version::new(3));
        assert_eq!(state(store, &stream("a")).await, Some(StreamState::Archived));
        assert_eq!(whole().await.unwrap(), before);
    }
}

pub(crate) async fn a_deleted_stream_is_not_archived_nor_the_other_way(store: &EventStore) {
    store.append(one(stream("a"), 1)).await.unwrap();
    store.delete_stream(&stream("a"), ANY).await.unwrap();
    let error = store.archive_stream(&stream("a"), ANY).await.unwrap_err();
    assert!(matches!(&error, Error::StreamDeleted { stream: named } if *named == stream("a")));
    store.restore_stream(&stream("a")).await.unwrap();
    store.archive_stream(&stream("a"), ANY).await.unwrap();
    let error = store.delete_stream(&stream("a"), ANY).await.unwrap_err();
    assert!(matches!(&error, Error::StreamArchived { stream: named } if *named == stream("a")));
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

const RETIRED: [StreamState; 2] = [StreamState::Deleted, StreamState::Archived];

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

/// Appends, deletions, archivings and restorings in any order, and all ways to read after each.
pub(crate) async fn any_story_of_streams_reads_like_its_model(store: &EventStore) {
    for chapter in 0..6 {
        tell(store, chapter).await;
    }
}

async fn tell(store: &EventStore, chapter: u64) {
    let mut random = StdRng::seed_from_u64(chapter);
    let start = store.safe_position().await.unwrap();
    let stream = |index: usize| stream(format!("{chapter}/{index}"));
    let mut model: Vec<(StreamId, i64)> = Vec::new();
    let mut states = [StreamState::Live; 4];
    let with_archived = EventQuery::log().after(start).include_archived();
    let mut cursor = store.cursor(with_archived.clone().page_size(3));
    let mut seen = Vec::new();
    for number in 0..60 {
        let index = random.random_range(0..4);
        let id = stream(index);
        let exists = model.iter().any(|(stream, _)| *stream == id);
        let outcome = match random.random_range(0..8) {
            0..=3 => {
                let appended = store.append(one(id.clone(), number)).await.is_ok();
                assert_eq!(appended, states[index] == StreamState::Live);
                if appended {
                    model.push((id.clone(), number));
                }
                continue;
            }
            4 | 5 => (store.restore_stream(&id).await, StreamState::Live),
            6 => (store.archive_stream(&id, ANY).await, StreamState::Archived),
            _ => (store.delete_stream(&id, ANY).await, StreamState::Deleted),
        };
        let may = exists
            && (states[index] == StreamState::Live
                || outcome.1 == StreamState::Live
                || outcome.1 == states[index]);
        assert_eq!(outcome.0.is_ok(), may, "{:?} after {:?}", outcome, states[index]);
        if may {
            states[index] = outcome.1;
        }
        seen.extend(cursor.next_page().await.unwrap());

        let told = |events: Vec<annals_eventstore::Recorded>| {
            let numbers = numbers(&events);
            std::iter::zip(events.into_iter().map(|event| event.stream), numbers)
                .collect::<Vec<_>>()
        };
        let whole = all(store.read(with_archived.clone())).await.unwrap();
        assert_eq!(told(whole), model);
        let state = |id: &StreamId| states[(0..4).find(|index| stream(*index) == *id).unwrap()];
        let hot = model.iter().filter(|(id, _)| state(id) != StreamState::Archived);
        let plain = all(store.read_all(start)).await.unwrap();
        assert_eq!(told(plain), hot.cloned().collect::<Vec<_>>());
        for index in 0..4 {
            let id = stream(index);
            let of = match state(&id) {
                StreamState::Deleted => Vec::new(),
                _ => model.iter().filter(|(stream, _)| *stream == id).cloned().collect(),
            };
            let query = EventQuery::stream(&id).include_archived();
            assert_eq!(told(all(store.read(query)).await.unwrap()), of);
            let plain = all(store.read_stream(&id, Version::NONE)).await;
            assert_eq!(plain.is_err(), state(&id) == StreamState::Archived);
            if let Ok(plain) = plain {
                assert_eq!(told(plain), of);
            }
        }
    }
    loop {
        let page = cursor.next_page().await.unwrap();
        if page.is_empty() {
            break;
        }
        seen.extend(page);
    }
    let seen: Vec<_> = seen.iter().map(|event| event.position).collect();
    let whole = all(store.read(with_archived)).await.unwrap();
    assert!(seen.into_iter().eq(whole.iter().map(|event| event.position)), "seen once each");
}
