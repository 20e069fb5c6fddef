//! Queries and cursors.

use annals_eventstore::{
    Append, Error, EventQuery, EventStore, ExpectedVersion, Metadata, Position, Recorded, StreamId,
    Version,
};
use chrono::{DateTime, TimeDelta, Utc};
use rand::{Rng, SeedableRng, rngs::StdRng, seq::IndexedRandom};
use uuid::Uuid;

use super::support::{all, event, log, numbers, one, stream};

/// Appends events of several categories, types and correlation ids; returns the log.
async fn fill(store: &EventStore, events: i64) -> Vec<Recorded> {
    let mut random = StdRng::seed_from_u64(11);
    for number in 0..events {
        let category = ["thing", "other", "third"].choose(&mut random).unwrap();
        let stream = StreamId::new(category, random.random_range(0..3)).unwrap();
        let mut event = event(number);
        event.event_type = format!("type {}", random.random_range(0..3));
        if random.random_bool(0.5) {
            // Longer than what fits into a page of an index.
            let id = format!("{}{}", random.random_range(0..3), "x".repeat(9000));
            event = event.metadata(Metadata::new().correlation_id(id));
        }
        store.append(Append::to(stream, ExpectedVersion::Any, [event])).await.unwrap();
    }
    log(store).await
}

type Filter = Box<dyn Fn(&Recorded) -> bool + Send + Sync>;

/// A query, and the same in words of its own.
struct Asked {
    query: EventQuery,
    filters: Vec<Filter>,
    backward: bool,
    limit: usize,
}

impl Asked {
    fn random(random: &mut StdRng, log: &[Recorded]) -> Self {
        let end = log.len() as i64;
        let mut filters: Vec<Filter> = Vec::new();
        let mut query = EventQuery::log();
        if random.random_bool(0.3) {
            let id = StreamId::new("thing", random.random_range(0..4)).unwrap();
            query = EventQuery::stream(&id);
            filters.push(Box::new(move |event| event.stream == id));
        }
        if random.random_bool(0.3) {
            let names = ["thing", "third", "nothing"];
            query = query.categories(names);
            filters.push(Box::new(move |event| names.contains(&event.stream.category())));
        }
        if random.random_bool(0.4) {
            let names = ["type 0", "type 2"];
            query = query.event_types(names);
            filters.push(Box::new(move |event| names.contains(&&*event.event_type)));
        }
        if random.random_bool(0.4) {
            let id = format!("{}{}", random.random_range(0..4), "x".repeat(9000));
            query = query.correlation_id(&id);
            filters.push(Box::new(move |event| {
                event.metadata.correlation_id.as_deref() == Some(&*id)
            }));
        }
        if random.random_bool(0.1) {
            // Of an event that is there, as a rule.
            let id = log.choose(random).map_or(Uuid::nil(), |event| event.id);
            query = query.event_id(id);
            filters.push(Box::new(move |event| event.id == id));
        }
        if random.random_bool(0.3) {
            let after = Position::new(random.random_range(0..end));
            query = query.after(after);
            filters.push(Box::new(move |event| event.position > after));
        }
        if random.random_bool(0.3) {
            let up_to = Position::new(random.random_range(0..end + 5));
            query = query.up_to(up_to);
            filters.push(Box::new(move |event| event.position <= up_to));
        }
        if random.random_bool(0.2) {
            let (after, up_to) = (random.random_range(0..6), random.random_range(0..12));
            query = query.after_version(Version::new(after)).up_to_version(Version::new(up_to));
            filters.push(Box::new(move |event| (after + 1..=up_to).contains(&event.version.get())));
        }
        let backward = random.random_bool(0.5);
        if backward {
            query = query.backward();
        }
        let mut limit = usize::MAX;
        if random.random_bool(0.3) {
            limit = random.random_range(0..10);
            query = query.limit(limit as u64);
        }
        let query = query.page_size(random.random_range(1..8));
        Self { query, filters, backward, limit }
    }

    fn of(&self, log: &[Recorded]) -> Vec<Recorded> {
        let found = log.iter().filter(|event| self.filters.iter().all(|filter| filter(event)));
        let mut found: Vec<_> = found.cloned().collect();
        if self.backward {
            found.reverse();
        }
        found.truncate(self.limit);
        found
    }
}

pub(crate) async fn a_query_finds_what_a_filter_over_the_log_finds(store: &EventStore) {
    let log = fill(store, 60).await;
    let mut random = StdRng::seed_from_u64(5);
    let mut found_any = 0;
    for _ in 0..150 {
        let asked = Asked::random(&mut random, &log);
        let found = all(store.read(asked.query.clone())).await.unwrap();
        let (found, expected) = (numbers(&found), numbers(&asked.of(&log)));
        found_any += usize::from(!found.is_empty());
        assert_eq!(found, expected, "{:?}", asked.query.correlation_id(""));
    }
    assert!(found_any > 50, "a test of nothing: only {found_any} found something");
}

pub(crate) async fn pages_of_any_size_lead_to_the_same_events(store: &EventStore) {
    let log = fill(store, 30).await;
    let mut reversed = log.clone();
    reversed.reverse();
    for size in [1, 2, 7, 29, 30, 31, 1000] {
        let query = || EventQuery::log().page_size(size);
        assert_eq!(all(store.read(query())).await.unwrap(), log);
        assert_eq!(all(store.read(query().backward())).await.unwrap(), reversed);
        let mut cursor = store.cursor(query());
        let page = cursor.next_page().await.unwrap();
        assert_eq!(page, log[..size.min(30)]);
    }
}

pub(crate) async fn reading_from_a_time_starts_with_its_first_event(store: &EventStore) {
    let log = fill(store, 20).await;
    for event in [&log[0], &log[7], &log[19]] {
        for (off, counts) in [(0, true), (-1, true), (1, false)] {
            let time = event.recorded_at + TimeDelta::nanoseconds(off);
            let at_or_after = |other: &&Recorded| match counts {
                true => other.recorded_at >= event.recorded_at,
                false => other.recorded_at > event.recorded_at,
            };
            let expected: Vec<_> = log.iter().filter(at_or_after).cloned().collect();
            let query = EventQuery::log().from_time(time);
            assert_eq!(all(store.read(query.clone())).await.unwrap(), expected);
            let back = all(store.read(query.backward())).await.unwrap();
            assert!(back.iter().rev().eq(&expected));
            let of_stream = EventQuery::stream(&event.stream).from_time(time);
            let expected: Vec<_> =
                expected.into_iter().filter(|other| other.stream == event.stream).collect();
            assert_eq!(all(store.read(of_stream)).await.unwrap(), expected);
        }
    }
    for earliest in [DateTime::<Utc>::MIN_UTC, DateTime::<Utc>::MIN_UTC + TimeDelta::days(1)] {
        let ever = EventQuery::log().from_time(earliest);
        assert_eq!(all(store.read(ever)).await.unwrap(), log);
    }
    let long_before = EventQuery::log().from_time(log[0].recorded_at - TimeDelta::days(30_000));
    assert_eq!(all(store.read(long_before)).await.unwrap(), log);
    let future = EventQuery::log().from_time(Utc::now() + TimeDelta::days(1));
    let error = all(store.read(future)).await.unwrap_err();
    assert!(matches!(error, Error::Future { .. }), "{error:?}");
}

/// Alone, from both ends, in the log and in its stream, and nowhere else.
pub(crate) async fn an_event_is_found_by_its_id(store: &EventStore) {
    let log = fill(store, 20).await;
    for event in [&log[0], &log[9], &log[19]] {
        let elsewhere = log.iter().find(|other| other.stream != event.stream).unwrap();
        for query in [EventQuery::log(), EventQuery::stream(&event.stream)] {
            let query = query.event_id(event.id);
            let found = all(store.read(query.clone())).await.unwrap();
            assert_eq!(found, std::slice::from_ref(event));
            assert_eq!(all(store.read(query.backward())).await.unwrap(), found);
        }
        let query = EventQuery::stream(&elsewhere.stream).event_id(event.id);
        assert_eq!(all(store.read(query)).await.unwrap(), []);
    }
    assert_eq!(all(store.read(EventQuery::log().event_id(Uuid::nil()))).await.unwrap(), []);
}

pub(crate) async fn a_cursor_passes_what_it_does_not_match(store: &EventStore) {
    let log = fill(store, 20).await;
    let end = log[19].position;
    for query in [
        EventQuery::log().category("nothing"),
        EventQuery::log().event_types(["nothing"]),
        EventQuery::log().correlation_id("nothing"),
        EventQuery::log().event_id(Uuid::nil()),
        EventQuery::log().event_types(Vec::<String>::new()),
    ] {
        let mut cursor = store.cursor(query.clone());
        assert_eq!(cursor.position(), Position::START);
        assert!(cursor.next_page().await.unwrap().is_empty());
        assert_eq!(cursor.position(), end);
        let mut backward = store.cursor(query.backward());
        assert!(backward.next_page().await.unwrap().is_empty());
        assert_eq!(backward.position(), Position::START);
    }
    // One that matched goes on to the end as well, but not before it has returned all.
    let mut cursor = store.cursor(EventQuery::log().event_types(["type 1"]).page_size(1));
    for event in log.iter().filter(|event| &*event.event_type == "type 1") {
        assert_eq!(cursor.next_page().await.unwrap(), std::slice::from_ref(event));
        assert_eq!(cursor.position(), event.position);
    }
    assert!(cursor.next_page().await.unwrap().is_empty());
    assert_eq!(cursor.position(), end);
    // What was stored elsewhere may say anything.
    let odd = r#"{"page_size": 0, "after": -5}"#;
    let mut cursor = store.cursor(serde_json::from_str(odd).unwrap());
    assert_eq!(cursor.next_page().await.unwrap(), log[..1]);
    assert_eq!(all(store.read(serde_json::from_str(odd).unwrap())).await.unwrap(), log);
    // A position beyond the end, of another store for example, is not taken back.
    let ahead = Position::new(1000);
    let mut cursor = store.cursor(EventQuery::log().after(ahead));
    assert!(cursor.next_page().await.unwrap().is_empty());
    assert_eq!(cursor.position(), ahead);
}

/// Whatever it was for, and however often it was stored.
pub(crate) async fn a_cursor_that_is_stored_goes_on_where_it_was(store: &EventStore) {
    let log = fill(store, 60).await;
    let mut random = StdRng::seed_from_u64(6);
    for _ in 0..60 {
        let asked = Asked::random(&mut random, &log);
        let query = match random.random_bool(0.2) {
            true => asked.query.clone().from_time(log[0].recorded_at),
            false => asked.query.clone(),
        };
        let mut stored = serde_json::to_string(&query).unwrap();
        let mut found = Vec::new();
        loop {
            let mut cursor = store.cursor(serde_json::from_str(&stored).unwrap());
            let page = cursor.next_page().await.unwrap();
            stored = serde_json::to_string(cursor.rest()).unwrap();
            if page.is_empty() {
                break;
            }
            found.extend(page);
        }
        assert_eq!(numbers(&found), numbers(&asked.of(&log)));
    }
    // Of the log, the position is enough.
    let mut cursor = store.cursor(EventQuery::log().page_size(17));
    cursor.next_page().await.unwrap();
    let rest = all(store.read_all(cursor.position())).await.unwrap();
    assert_eq!(rest, log[17..]);
}

pub(crate) async fn a_cursor_follows_the_log(store: &EventStore) {
    let streams = [stream("a"), stream("b")];
    let mut of_log = store.cursor(EventQuery::log());
    let mut of_stream = store.cursor(EventQuery::stream(&streams[0]));
    let mut bounded = store.cursor(EventQuery::log().up_to(Position::new(5)).limit(4));
    let (mut seen, mut seen_of_stream, mut seen_bounded) = (Vec::new(), Vec::new(), Vec::new());
    for number in 0..10 {
        store.append(one(streams[number as usize % 2].clone(), number)).await.unwrap();
        seen.extend(of_log.next_page().await.unwrap());
        seen_of_stream.extend(of_stream.next_page().await.unwrap());
        seen_bounded.extend(bounded.next_page().await.unwrap());
        assert_eq!(of_log.position(), store.safe_position().await.unwrap());
    }
    assert!(numbers(&seen).into_iter().eq(0..10));
    assert_eq!(numbers(&seen_of_stream), [0, 2, 4, 6, 8]);
    assert_eq!(numbers(&seen_bounded), [0, 1, 2, 3]);
}

pub(crate) async fn a_cursor_backward_comes_to_an_end(store: &EventStore) {
    let mut early = store.cursor(EventQuery::log().backward());
    assert!(early.next_page().await.unwrap().is_empty());
    for number in 0..5 {
        store.append(one(stream("a"), number)).await.unwrap();
    }
    let mut late = store.cursor(EventQuery::log().backward().page_size(3));
    assert_eq!(numbers(&late.next_page().await.unwrap()), [4, 3, 2]);
    let five = Position::new(5);
    for query in [EventQuery::log(), EventQuery::stream(&stream("a"))] {
        let mut cursor = store.cursor(query.up_to(five).backward().page_size(3));
        assert_eq!(numbers(&cursor.next_page().await.unwrap()), [4, 3, 2]);
        store.append(one(stream("a"), 9)).await.unwrap();
        assert_eq!(numbers(&cursor.next_page().await.unwrap()), [1, 0]);
        assert_eq!(numbers(&cursor.next_page().await.unwrap()), [0; 0]);
        assert_eq!(cursor.position(), Position::START);
    }
    assert_eq!(numbers(&late.next_page().await.unwrap()), [1, 0], "nothing newer");
}
