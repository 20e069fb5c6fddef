//! Aggregates as they are and as they were.

use annals_eventstore::{
    Append, AsOf, DecodeError, Error, EventStore, ExecuteError, ExpectedVersion, NewEvent, Payload,
    Position, Version,
};
use chrono::{TimeDelta, Utc};

use super::support::{
    counter::{Change, Counter, counter},
    log,
};

pub(crate) async fn what_does_not_exist_is_none(store: &EventStore) {
    store.execute(Change::new("other", [1])).await.unwrap();
    let end = store.safe_position().await.unwrap();
    assert_eq!(store.load::<Counter>("a").await.unwrap(), None);
    for as_of in [
        AsOf::Version(Version::NONE),
        AsOf::Version(Version::new(5)),
        AsOf::Position(Position::START),
        AsOf::Position(end),
        AsOf::Time(Utc::now() - TimeDelta::days(1)),
    ] {
        assert_eq!(store.load_as_of::<Counter>("a", as_of).await.unwrap(), None, "{as_of:?}");
    }
}

pub(crate) async fn an_aggregate_as_of_a_version_is_that_of_a_fold(store: &EventStore) {
    for by in 1..=5 {
        store.execute(Change::new("a", [by])).await.unwrap();
        store.execute(Change::new("b", [by * 100])).await.unwrap();
    }
    let log = log(store).await;
    for version in 0..=7 {
        let loaded = store.load_as_of::<Counter>("a", AsOf::Version(Version::new(version))).await;
        let loaded = loaded.unwrap();
        // A version that is yet to come is the last one there is.
        let there = version.min(5);
        assert_eq!(loaded.is_some(), there > 0);
        if let Some(loaded) = loaded {
            assert_eq!(loaded.state, Counter { total: (1..=there).sum(), changes: there });
            assert_eq!(loaded.version.get(), there);
            assert_eq!(loaded.position, log[2 * (there as usize - 1)].position);
        }
    }
}

pub(crate) async fn an_aggregate_as_of_a_position_is_that_of_a_fold(store: &EventStore) {
    for by in 1..=5 {
        store.execute(Change::new("other", [1, 1])).await.unwrap();
        store.execute(Change::new("a", [by])).await.unwrap();
    }
    let log = log(store).await;
    for position in 0..=log[log.len() - 1].position.get() {
        let as_of = AsOf::Position(Position::new(position));
        let loaded = store.load_as_of::<Counter>("a", as_of).await.unwrap();
        let own = log.iter().filter(|event| event.stream == counter("a"));
        let then: Vec<_> = own.filter(|event| event.position.get() <= position).collect();
        assert_eq!(
            loaded.map(|l| (l.state.changes, l.state.total, l.version, l.position)),
            then.last().map(|last| {
                let count = then.len() as i64;
                (count, (1..=count).sum(), last.version, last.position)
            }),
            "as of position {position}"
        );
    }
}

pub(crate) async fn a_position_beyond_the_end_is_an_error(store: &EventStore) {
    let position = store.execute(Change::new("a", [1])).await.unwrap().position;
    let as_of = AsOf::Position(position.plus(1));
    match store.load_as_of::<Counter>("a", as_of).await {
        Err(Error::BeyondEnd { at, end }) => assert_eq!((at, end), (position.plus(1), position)),
        other => panic!("{other:?}"),
    }
}

pub(crate) async fn the_future_is_an_error(store: &EventStore) {
    store.execute(Change::new("a", [1])).await.unwrap();
    // The server may be another machine, with a clock of its own.
    let time = Utc::now() + TimeDelta::hours(2);
    match store.position_at(time).await {
        Err(Error::Future { at, .. }) => assert!((at - time).abs() < TimeDelta::microseconds(1)),
        other => panic!("{other:?}"),
    }
    let loaded = store.load_as_of::<Counter>("a", AsOf::Time(time)).await;
    assert!(matches!(loaded, Err(Error::Future { .. })));
}

pub(crate) async fn an_event_that_cannot_be_decoded_is_named(store: &EventStore) {
    let raw = |kind: &str, version, json: &'static str| {
        NewEvent::raw(kind, version, Payload::from_json(json).unwrap())
    };
    type Check = fn(&DecodeError) -> bool;
    let cases: [(NewEvent, &str, Check); 5] = [
        (
            raw("exploded", 1, r#"{"by":1}"#),
            "cannot decode event 2 of stream counter-0, type \"exploded\" version 1",
            |error| matches!(error, DecodeError::UnknownType),
        ),
        (
            raw("changed", 1, r#"{"by":"one"}"#),
            "cannot decode event 2 of stream counter-1, type \"changed\" version 1",
            |error| matches!(error, DecodeError::Payload(_)),
        ),
        (
            raw("changed", 1, r#"{}"#),
            "cannot decode event 2 of stream counter-2, type \"changed\" version 1",
            |error| matches!(error, DecodeError::Payload(_)),
        ),
        (
            raw("changed", 1, "7"),
            "cannot decode event 2 of stream counter-3, type \"changed\" version 1",
            |error| matches!(error, DecodeError::Payload(_)),
        ),
        (
            raw("changed", 2, r#"{"by":1}"#),
            "cannot decode event 2 of stream counter-4, type \"changed\" version 2",
            |error| matches!(error, DecodeError::NewerVersion { supported: 1 }),
        ),
    ];
    for (key, (event, message, check)) in cases.into_iter().enumerate() {
        store.execute(Change::new(key, [1])).await.unwrap();
        store.append(Append::to(counter(key), ExpectedVersion::Any, [event])).await.unwrap();
        let loading = store.load::<Counter>(key).await.unwrap_err();
        let executing = match store.execute(Change::new(key, [1])).await {
            Err(ExecuteError::Failed(error)) => error,
            other => panic!("{other:?}"),
        };
        for error in [loading, executing] {
            assert_eq!(error.to_string(), message);
            assert!(!error.is_retryable());
            let Error::Decode { source, .. } = &error else { panic!("{error}") };
            assert!(check(source), "{source:?}");
        }
        // What came before can still be seen.
        let before = AsOf::Version(Version::new(1));
        let before = store.load_as_of::<Counter>(key, before).await.unwrap().unwrap();
        assert_eq!(before.state.total, 1);
    }
}
