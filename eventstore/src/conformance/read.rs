//! What comes back of what was written, and in which order.

use annals_eventstore::{
    Aggregate, Append, Apply, Command, Event, EventStore, ExpectedVersion, Handle, Metadata,
    NewEvent, Payload, Position, StreamId, Version,
};
use chrono::{TimeDelta, Utc};
use rand::{Rng, SeedableRng, rngs::StdRng};
use serde::{Deserialize, Serialize};
use serde_json::json as value;

use super::{
    append::assert_refused,
    support::{
        all, assert_sound, counter::Change, event, events, history, json, log, numbers, one, stream,
    },
};

pub(crate) async fn all_that_an_event_holds_comes_back(store: &EventStore) {
    let metadata = Metadata::new()
        .correlation_id("correlation \u{1F980}")
        .causation_id("causation")
        .actor("actor \"quoted\" \\ \n")
        .traceparent("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")
        .with("nested", value!({"list": [1, "two", null, true], "map": {"": -0.5}}))
        .with("large", u64::MAX)
        .with("correlation_id", "the caller's own");
    let occurred = "1999-12-31T23:59:59.123456789Z".parse().unwrap();
    let full = NewEvent::raw("thing.happened/2", 7, Payload::from_json("[1]").unwrap())
        .metadata(metadata.clone())
        .occurred_at(occurred);
    let bare = event(1);
    let ids = [full.id, bare.id];
    let appended =
        store.append(Append::to(stream("a"), ExpectedVersion::Any, [full, bare])).await.unwrap();
    let log = log(store).await;
    assert_eq!([log[0].id, log[1].id], ids);
    assert_eq!(log[0].stream, stream("a"));
    assert_eq!((&*log[0].event_type, log[0].schema_version), ("thing.happened/2", 7));
    assert_eq!(log[0].metadata, metadata);
    // PostgreSQL keeps microseconds.
    assert_eq!(log[0].occurred_at, Some(occurred - TimeDelta::nanoseconds(789)));
    assert_eq!(log[0].event.as_bytes(), b"[1]");
    assert_eq!((log[1].metadata.clone(), log[1].occurred_at), (Metadata::new(), None));
    assert_eq!(
        [log[0].position, log[1].position],
        [appended.first_position, appended.last_position]
    );
    assert_eq!(log, history(store, &stream("a")).await);
}

pub(crate) async fn payloads_come_back_as_they_were_written(store: &EventStore) {
    let payloads = [
        r#"{"b": 1,   "a": 2, "b": 3}"#,
        " [ 1.0, 1.00, 1e2, 123456789012345678901234567890.123456789 ]\n",
        r#""\u00e9 \ud83e\udd80 é 🦀 \/ / \\u0000""#,
        "null",
        "-0",
        "{}",
    ];
    let append = Append::to(stream("a"), ExpectedVersion::Any, payloads.map(json));
    store.append(append).await.unwrap();
    let log = log(store).await;
    let stored: Vec<_> =
        log.iter().map(|e| std::str::from_utf8(e.event.as_bytes()).unwrap()).collect();
    assert_eq!(stored, payloads);
}

/// Also to the last digit of a floating-point number.
pub(crate) async fn numbers_come_back_as_they_were_written(store: &EventStore) {
    let mut random = StdRng::seed_from_u64(7);
    let numbers: Vec<f64> = (0..500).map(|_| random.random_range(-1e3..1e3)).collect();
    let write = |number: &f64| Measure { counter: "a".into(), number: *number };
    for outcome in store.execute_all(numbers.iter().map(write)).await.unwrap() {
        outcome.unwrap();
    }
    let loaded = store.load::<Measurements>("a").await.unwrap().unwrap();
    assert_eq!(loaded.state.0, numbers);
    let said = event(1).metadata(Metadata::new().with("numbers", numbers.clone()));
    store.append(Append::to(stream("a"), ExpectedVersion::Any, [said])).await.unwrap();
    let metadata = &history(store, &stream("a")).await[0].metadata;
    assert_eq!(metadata.custom["numbers"], value!(numbers));
}

#[derive(Event, Serialize, Deserialize)]
enum Measured {
    Measured(f64),
}

#[derive(Aggregate, Default)]
#[aggregate(category = "measurements", event = Measured)]
struct Measurements(Vec<f64>);

impl Apply<Measured> for Measurements {
    fn apply(&mut self, Measured::Measured(number): &Measured) {
        self.0.push(*number);
    }
}

#[derive(Command, Serialize, Clone)]
#[command(aggregate = Measurements)]
struct Measure {
    #[command(id)]
    counter: String,
    number: f64,
}

impl Handle<Measure> for Measurements {
    fn handle(&self, command: Measure) -> Result<Vec<Measured>, Self::Error> {
        Ok(vec![Measured::Measured(command.number)])
    }
}

pub(crate) async fn recording_times_are_the_stores_own(store: &EventStore) {
    let before = Utc::now();
    for number in 0..5 {
        store.append(one(stream(number), number)).await.unwrap();
    }
    let log = log(store).await;
    assert_sound(&log);
    // The server may be another machine, with a clock of its own.
    let off = |event: &annals_eventstore::Recorded| (event.recorded_at - before).abs();
    assert!(log.iter().all(|event| off(event) < TimeDelta::hours(1)), "{log:?}");
}

pub(crate) async fn a_recording_time_for_the_stores_own_clock_is_refused(store: &EventStore) {
    let timed = Append::to(stream("a"), ExpectedVersion::Any, [event(1).recorded_at(Utc::now())]);
    assert_refused(store.append(timed).await, "open the store with a supplied clock");
    let mut command = annals_eventstore::Envelope::new(Change::new("a", [1]));
    command.recorded_at = Some(Utc::now());
    let error = store.execute(command).await.unwrap_err();
    assert!(error.to_string().contains("open the store with a supplied clock"), "{error}");
    assert!(log(store).await.is_empty());
}

pub(crate) async fn more_than_a_page_is_read_in_order(store: &EventStore) {
    // A page has 2,000 events. The stream a gets 4,001, so its last page has one.
    let (a, b) = (stream("a"), StreamId::new("other", "b").unwrap());
    for chunk in 0..10 {
        let first = chunk * 400;
        let append = Append::to(a.clone(), ExpectedVersion::Any, events(first..first + 400)).and(
            b.clone(),
            ExpectedVersion::Any,
            events(first..first + 200),
        );
        store.append(append).await.unwrap();
    }
    store.append(one(a.clone(), 4000)).await.unwrap();

    let log = log(store).await;
    assert_eq!(log.len(), 6001);
    assert_sound(&log);
    let of = |id: &StreamId| log.iter().filter(|e| e.stream == *id).cloned().collect::<Vec<_>>();
    assert!(numbers(&of(&a)).into_iter().eq(0..=4000));
    for after in [0, 1, 1999, 2000, 2001, 4000, 4001, 9999] {
        let rest = &of(&a)[(after as usize).min(4001)..];
        assert_eq!(all(store.read_stream(&a, Version::new(after))).await.unwrap(), rest);
    }
    for index in [0, 1, 1999, 2000, 2001, 4001, 6000] {
        let after = log[index].position;
        assert_eq!(all(store.read_all(after)).await.unwrap(), log[index + 1..]);
        let rest: Vec<_> = of(&b).into_iter().filter(|event| event.position > after).collect();
        assert_eq!(all(store.read_category("other", after)).await.unwrap(), rest);
    }
    assert!(all(store.read_category("nothing", Position::START)).await.unwrap().is_empty());
    assert!(all(store.read_stream(&stream("c"), Version::NONE)).await.unwrap().is_empty());
}

pub(crate) async fn a_page_ends_where_it_is_told_to(store: &EventStore) {
    let mut positions = Vec::new();
    for number in 0..10 {
        let stream = StreamId::new(["thing", "other"][number as usize % 2], number).unwrap();
        positions.push(store.append(one(stream, number)).await.unwrap().last_position);
    }
    let page = async |categories: Option<&[&str]>, after: usize, up_to: usize, limit| {
        let categories =
            categories.map(|names| names.iter().map(|n| n.to_string()).collect::<Vec<_>>());
        let (after, up_to) = (positions[after], positions[up_to]);
        numbers(&store.read_page(categories.as_deref(), after, up_to, limit).await.unwrap())
    };
    assert_eq!(page(None, 2, 5, 100).await, [3, 4, 5]);
    assert_eq!(page(None, 2, 9, 2).await, [3, 4]);
    assert_eq!(page(None, 5, 2, 100).await, [0; 0]);
    assert_eq!(page(Some(&["other"]), 0, 8, 100).await, [1, 3, 5, 7]);
    assert_eq!(page(Some(&["other", "thing"]), 0, 8, 3).await, [1, 2, 3]);
    assert_eq!(page(Some(&["other", "unknown"]), 0, 9, 2).await, [1, 3]);
    assert_eq!(page(Some(&[]), 0, 9, 100).await, [0; 0]);
    let safe = store.safe_position().await.unwrap();
    assert_eq!(safe, positions[9]);

    // The same with the safe position, which is not passed.
    let look = async |categories: Option<&[String]>, after: Position, up_to, limit, bytes| {
        let (at, page) = store.look(categories, after, up_to, limit, bytes).await.unwrap();
        assert_eq!(at, safe);
        page
    };
    let (log, end) = (log(store).await, Position::new(i64::MAX));
    let other = ["other".to_owned()];
    assert_eq!(look(None, Position::START, end, 100, usize::MAX).await, log);
    assert_eq!(look(None, positions[2], positions[5], 100, usize::MAX).await, log[3..6]);
    assert_eq!(look(None, positions[2], end, 2, usize::MAX).await, log[3..5]);
    assert_eq!(look(None, positions[2], end, 100, 1).await, log[3..4]);
    let of_other = look(Some(&other), positions[0], positions[8], 100, usize::MAX).await;
    assert_eq!(numbers(&of_other), [1, 3, 5, 7]);
    for after in [safe, safe.plus(1), safe.plus(1000)] {
        assert_eq!(look(None, after, end, 100, usize::MAX).await, []);
    }
}

pub(crate) async fn streams_of_similar_names_are_told_apart(store: &EventStore) {
    let keys =
        ["a", "A", "a ", "a-", "a%", "a_", "á", "a\u{301}", "'; drop table events; --", "\"", "\\"];
    let mut streams: Vec<_> = keys.iter().map(stream).collect();
    streams.extend([StreamId::new("things", "a").unwrap(), StreamId::new("thing_", "a").unwrap()]);
    streams.push(stream("x".repeat(255)));
    for (number, stream) in (0..).zip(&streams) {
        let append = Append::to(stream.clone(), ExpectedVersion::NoStream, [event(number)]);
        store.append(append).await.unwrap();
    }
    for (number, stream) in (0..).zip(&streams) {
        let history = history(store, stream).await;
        assert_eq!(numbers(&history), [number], "{stream}");
        assert_eq!(history[0].stream, *stream);
    }
    let things = all(store.read_category("things", Position::START)).await.unwrap();
    assert_eq!(things.len(), 1);
}
