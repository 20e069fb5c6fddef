//! What an append takes, refuses and promises.

use annals_eventstore::{
    Append, Appended, Error, EventStore, ExpectedVersion, Metadata, NewEvent, Payload, Version,
};
use futures::future::join_all;

use super::support::{
    assert_sound, event, events, history, json, log, number, numbers, one, stream,
};

pub(crate) async fn each_expectation_meets_each_state(store: &EventStore) {
    let exact = |version| ExpectedVersion::Exact(Version::new(version));
    // Of a stream without events, and of one with two: whether the append goes through.
    let table = [
        (ExpectedVersion::Any, true, true),
        (ExpectedVersion::NoStream, true, false),
        (ExpectedVersion::Exists, false, true),
        (exact(0), true, false),
        (exact(1), false, false),
        (exact(2), false, true),
        (exact(3), false, false),
    ];
    let mut recorded = 0;
    for (row, (expected, on_none, on_two)) in table.into_iter().enumerate() {
        for (before, accepted) in [(0, on_none), (2, on_two)] {
            let stream = stream(format!("{row}-{before}"));
            if before > 0 {
                store
                    .append(Append::to(stream.clone(), ExpectedVersion::NoStream, events(1..=2)))
                    .await
                    .unwrap();
            }
            let outcome = store.append(Append::to(stream.clone(), expected, [event(3)])).await;
            let case = format!("{expected} on a stream at {before}: {outcome:?}");
            if accepted {
                let versions = vec![(stream.clone(), Version::new(before + 1))];
                assert_eq!(outcome.expect(&case).versions, versions, "{case}");
            } else {
                match outcome.expect_err(&case) {
                    Error::Conflict { stream: named, expected: wanted, actual } => {
                        let conflict = (named, wanted, actual.get());
                        assert_eq!(conflict, (stream.clone(), expected, before), "{case}");
                    }
                    other => panic!("{case}: {other}"),
                }
            }
            let history = history(store, &stream).await;
            assert_eq!(history.len() as i64, before + i64::from(accepted), "{case}");
            recorded += history.len();
        }
    }
    let log = log(store).await;
    assert_eq!(log.len(), recorded);
    assert_sound(&log);
}

pub(crate) async fn a_conflict_in_a_later_stream_names_that_stream(store: &EventStore) {
    store.append(one(stream("b"), 1)).await.unwrap();
    let append = Append::to(stream("a"), ExpectedVersion::NoStream, [event(2)])
        .and(stream("b"), ExpectedVersion::Exact(Version::new(7)), [event(3)])
        .and(stream("c"), ExpectedVersion::Any, [event(4)]);
    let error = store.append(append).await.unwrap_err();
    assert_eq!(error.to_string(), "stream thing-b is at version 1, the append expected version 7");
    assert!(!error.is_retryable(), "the same append again would conflict again");
}

pub(crate) async fn one_of_two_writers_on_a_version_wins(store: &EventStore) {
    let stream = stream("contended");
    for round in 0..40 {
        let expected = ExpectedVersion::Exact(Version::new(round));
        let write = |number| store.append(Append::to(stream.clone(), expected, [event(number)]));
        let outcomes = join_all([write(1), write(2)]).await;
        let won = outcomes.iter().filter(|outcome| outcome.is_ok()).count();
        assert_eq!(won, 1, "in round {round}: {outcomes:?}");
        for conflict in outcomes.into_iter().filter_map(Result::err) {
            let Error::Conflict { stream: named, expected: wanted, actual } = conflict else {
                panic!("{conflict}")
            };
            assert_eq!((named, wanted, actual.get()), (stream.clone(), expected, round + 1));
        }
    }
    let history = history(store, &stream).await;
    assert_eq!(history.len(), 40);
    assert_sound(&history);
}

pub(crate) async fn many_writers_to_any_version_lose_nothing(store: &EventStore) {
    let writers = (0..32).map(|writer| {
        let store = store.clone();
        tokio::spawn(async move {
            let mut acknowledged = Vec::new();
            for round in 0..20 {
                let stream = stream((writer + round) % 4);
                let first = (writer * 20 + round) * 3;
                let numbers = first..first + 1 + round % 3;
                let append = Append::to(stream, ExpectedVersion::Any, events(numbers.clone()));
                acknowledged.push((numbers, store.append(append).await.unwrap()));
            }
            acknowledged
        })
    });
    let acknowledged: Vec<_> =
        join_all(writers).await.into_iter().flat_map(Result::unwrap).collect();
    let log = log(store).await;
    assert_sound(&log);
    let count: usize = acknowledged.iter().map(|(numbers, _)| numbers.clone().count()).sum();
    assert_eq!(log.len(), count);
    for (numbers, appended) in acknowledged {
        let recorded: Vec<_> = log.iter().filter(|e| numbers.contains(&number(e))).collect();
        let positions: Vec<_> = recorded.iter().map(|event| event.position).collect();
        let reported = appended.first_position.get()..=appended.last_position.get();
        assert!(positions.iter().map(|position| position.get()).eq(reported), "{appended:?}");
        let last = recorded.last().unwrap();
        assert_eq!(appended.versions, [(last.stream.clone(), last.version)]);
        assert!(!appended.replayed);
    }
}

pub(crate) async fn several_streams_are_appended_in_the_order_given(store: &EventStore) {
    let (a, b) = (stream("a"), stream("b"));
    store.append(one(a.clone(), 1)).await.unwrap();
    let append = Append::to(b.clone(), ExpectedVersion::NoStream, events(2..=3)).and(
        a.clone(),
        ExpectedVersion::Exact(Version::new(1)),
        events(4..=6),
    );
    let appended = store.append(append).await.unwrap();
    let log = log(store).await;
    assert_eq!(numbers(&log), [1, 2, 3, 4, 5, 6]);
    assert_sound(&log);
    assert_eq!(appended.versions, [(b, Version::new(2)), (a, Version::new(4))]);
    assert_eq!(appended.first_position, log[1].position);
    assert_eq!(appended.last_position, log[5].position);
}

pub(crate) async fn several_streams_are_appended_all_or_none(store: &EventStore) {
    for (a, b) in [
        (ExpectedVersion::Exists, ExpectedVersion::Any),
        (ExpectedVersion::Any, ExpectedVersion::Exists),
        (ExpectedVersion::NoStream, ExpectedVersion::Exact(Version::new(1))),
    ] {
        let append = Append::to(stream("a"), a, events(1..=2)).and(stream("b"), b, events(3..=4));
        assert!(matches!(store.append(append).await, Err(Error::Conflict { .. })));
        assert!(log(store).await.is_empty(), "{a} and {b} left something behind");
    }
}

pub(crate) async fn opposite_orders_of_streams_do_not_deadlock(store: &EventStore) {
    let writers = (0..16).map(|writer| {
        let store = store.clone();
        tokio::spawn(async move {
            for round in 0..25 {
                let mut keys = ["a", "b", "c"];
                if writer % 2 == 0 {
                    keys.reverse();
                }
                keys.rotate_left(round % 3);
                let [first, second, third] = keys.map(stream);
                let append = Append::to(first, ExpectedVersion::Any, [event(1)])
                    .and(second, ExpectedVersion::Any, [event(2)])
                    .and(third, ExpectedVersion::Any, [event(3)]);
                store.append(append).await.unwrap();
            }
        })
    });
    join_all(writers).await.into_iter().for_each(Result::unwrap);
    let log = log(store).await;
    assert_eq!(log.len(), 16 * 25 * 3);
    assert_sound(&log);
    // Each append's three events stand next to each other.
    assert!(log.chunks(3).all(|events| numbers(events) == [1, 2, 3]));
}

pub(crate) async fn an_append_without_events_is_refused(store: &EventStore) {
    let empty = Append::to(stream("a"), ExpectedVersion::Any, []);
    assert_refused(store.append(empty).await, "no events for thing-a");
    let half = one(stream("a"), 1).and(stream("b"), ExpectedVersion::Any, []);
    assert_refused(store.append(half).await, "no events for thing-b");
    assert!(log(store).await.is_empty());
}

pub(crate) async fn a_stream_named_twice_is_refused(store: &EventStore) {
    let twice = one(stream("a"), 1).and(stream("b"), ExpectedVersion::Any, [event(2)]).and(
        stream("a"),
        ExpectedVersion::Any,
        [event(3)],
    );
    assert_refused(store.append(twice).await, "stream thing-a is named twice");
    assert!(log(store).await.is_empty());
}

pub(crate) async fn what_is_too_large_is_refused(store: &EventStore) {
    let limit = 768 * 1024;
    let payload = |bytes| json(&format!("\"{}\"", "x".repeat(bytes - 2)));
    let metadata = Metadata::new().actor("x".repeat(limit));
    let too_many = (0..100_001).map(event).collect::<Vec<_>>();
    for (events, reason) in [
        (vec![event(1), payload(limit + 1)], "has 786433 bytes, the limit is 786432"),
        (vec![event(1).metadata(metadata)], "the limit is 786432"),
        (too_many, "more than 100000 events"),
    ] {
        let append = Append::to(stream("a"), ExpectedVersion::Any, events);
        assert_refused(store.append(append).await, reason);
    }
    assert!(log(store).await.is_empty());
    let largest = Append::to(stream("a"), ExpectedVersion::Any, [payload(limit)]);
    store.append(largest).await.unwrap();
}

pub(crate) async fn what_cannot_be_stored_is_refused(store: &EventStore) {
    let named = |name: &str| NewEvent::raw(name, 1, Payload::from_json("{}").unwrap());
    let versioned = |version| NewEvent::raw("happened", version, Payload::from_json("{}").unwrap());
    for (event, reason) in [
        (json(r#"{"a":"\u0000"}"#), "\\u0000"),
        (json(r#"{"a\u0000":1}"#), "\\u0000"),
        (event(1).metadata(Metadata::new().actor("a\0b")), "\\u0000"),
        (event(1).metadata(Metadata::new().with("a\0b", 1)), "\\u0000"),
        (event(1).metadata(Metadata::new().with("a", vec!["a\0b"])), "\\u0000"),
        (named(""), "is no event type"),
        (named("a\nb"), "is no event type"),
        (named(&"x".repeat(129)), "is no event type"),
        (versioned(0), "is no schema version"),
        (versioned(u32::MAX), "is no schema version"),
    ] {
        let append = Append::to(stream("a"), ExpectedVersion::Any, [event]);
        assert_refused(store.append(append).await, reason);
    }
    assert!(log(store).await.is_empty());
    // An escaped backslash before u0000 is no such character.
    let append = Append::to(stream("a"), ExpectedVersion::Any, [json(r#"{"a":"\\u0000"}"#)]);
    store.append(append).await.unwrap();
}

pub(crate) async fn a_bad_append_among_many_fails_alone(store: &EventStore) {
    store.append(one(stream("taken"), -1)).await.unwrap();
    let append = |number: i64| match number % 5 {
        1 => Append::to(stream("taken"), ExpectedVersion::NoStream, [event(number)]),
        2 => one(stream(number), number).and(
            stream("a"),
            ExpectedVersion::Any,
            [json("\"\\u0000\"")],
        ),
        3 => {
            let large = json(&format!("\"{}\"", "x".repeat(800 * 1024)));
            Append::to(stream(number), ExpectedVersion::Any, [event(number), large])
        }
        _ => one(stream(number % 7), number),
    };
    let appends = (0..200).map(|number| {
        let store = store.clone();
        tokio::spawn(async move { store.append(append(number)).await })
    });
    let outcomes = join_all(appends).await.into_iter().map(Result::unwrap);
    let mut good = vec![-1];
    for (number, outcome) in (0..).zip(outcomes) {
        match (number % 5, outcome) {
            (1, Err(Error::Conflict { actual, .. })) => assert_eq!(actual, Version::new(1)),
            (2 | 3, Err(Error::InvalidAppend { .. })) => {}
            (0 | 4, Ok(_)) => good.push(number),
            (_, outcome) => panic!("append {number}: {outcome:?}"),
        }
    }
    let log = log(store).await;
    assert_sound(&log);
    let mut recorded = numbers(&log);
    recorded.sort_unstable();
    assert_eq!(recorded, good);
}

pub(crate) async fn a_caller_that_goes_away_leaves_the_append_whole(store: &EventStore) {
    for round in 0..30 {
        let append = Append::to(stream("a"), ExpectedVersion::Any, events([round; 3])).and(
            stream("b"),
            ExpectedVersion::Any,
            events([round; 2]),
        );
        let mut appending = Box::pin(store.append(append));
        for _ in 0..round % 3 {
            if futures::poll!(&mut appending).is_ready() {
                break;
            }
            tokio::task::yield_now().await;
        }
        drop(appending);
    }
    // The same streams once more: what was under way is recorded before it.
    let last = one(stream("a"), 99).and(stream("b"), ExpectedVersion::Any, [event(99)]);
    store.append(last).await.unwrap();
    let log = log(store).await;
    assert_sound(&log);
    for round in 0..30 {
        let recorded = numbers(&log).into_iter().filter(|number| *number == round).count();
        assert!(recorded == 0 || recorded == 5, "{recorded} of 5 events of round {round}");
        assert!(round % 3 != 0 || recorded == 0, "round {round} was never asked for");
    }
}

#[track_caller]
pub(crate) fn assert_refused(outcome: Result<Appended, Error>, reason: &str) {
    match outcome {
        Err(error @ Error::InvalidAppend { .. }) => {
            assert!(error.to_string().contains(reason), "{error} does not say {reason:?}");
            assert!(!error.is_retryable());
        }
        other => panic!("not refused for {reason:?}: {other:?}"),
    }
}

/// The caller gave up, at whatever step; asked again under the same key, the store says what was.
pub(crate) async fn the_key_settles_what_became_of_an_append(store: &EventStore) {
    for round in 0..30 {
        let append = || {
            Append::to(stream("a"), ExpectedVersion::Any, events([round; 3]))
                .and(stream(format!("b {round}")), ExpectedVersion::NoStream, events([round; 2]))
                .idempotency_key(format!("round {round}"))
        };
        let mut appending = Box::pin(store.append(append()));
        for _ in 0..round % 4 {
            if futures::poll!(&mut appending).is_ready() {
                break;
            }
            tokio::task::yield_now().await;
        }
        drop(appending);
        let settled = loop {
            match store.append(append()).await {
                Err(Error::KeyInFlight) => tokio::task::yield_now().await,
                settled => break settled.unwrap(),
            }
        };
        assert_eq!(settled.last_position.get() - settled.first_position.get(), 4);
        let mut again = store.append(append()).await.unwrap();
        assert!(again.replayed);
        again.replayed = settled.replayed;
        assert_eq!(again, settled);
    }
    let log = log(store).await;
    assert_sound(&log);
    assert!(numbers(&log).into_iter().eq((0..30).flat_map(|round| [round; 5])));
}
