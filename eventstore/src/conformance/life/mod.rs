//! Streams that are deleted, archived and restored; idempotency keys that are removed.

mod commands;
mod story;

use annals_eventstore::{
    Append, AsOf, Error, EventQuery, EventStore, ExpectedVersion, Position, StreamId, StreamInfo,
    StreamState, Version,
};

pub(crate) use self::{commands::*, story::*};
use super::support::{
    all,
    counter::{Change, Counter},
    event, events, history, log, numbers, one, stream,
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
