//! What holds whatever is asked: laws, checked on cases drawn at random and made smaller when one
//! breaks them.

use std::{
    collections::HashMap,
    panic::AssertUnwindSafe,
    sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering},
    },
};

use annals_eventstore::{
    Append, Apply, AsOf, Error, EventStore, ExecuteError, ExpectedVersion, Metadata, NewEvent,
    Payload, Position, Recorded, StreamId, Version,
};
use futures::future::join_all;
use proptest::{collection::vec, option, prelude::*, sample::select, test_runner::TestRunner};
use serde_json::Value;
use tokio::{runtime::Handle, task::block_in_place};

use super::{
    list::open,
    stores::Stores,
    support::{
        all,
        counter::{Change, Counter, CounterEvent, counter},
        event, events,
    },
};

/// Checks a property on so many cases. A case that breaks it is made smaller, as far as that goes.
pub(super) fn check<S: Strategy>(cases: u32, strategy: S, property: impl AsyncFn(S::Value)) {
    let config = ProptestConfig {
        cases,
        max_shrink_iters: 100,
        failure_persistence: None,
        ..ProptestConfig::default()
    };
    let property = AssertUnwindSafe(property);
    let outcome = block_in_place(|| {
        TestRunner::new(config).run(&strategy, |value| {
            Handle::current().block_on(property(value));
            Ok(())
        })
    });
    if let Err(failure) = outcome {
        panic!("{failure}");
    }
}

/// A store that the cases of a property share, as long as they hold: opening one takes time. Each
/// case has names of its own.
pub(super) struct Reused<'a> {
    stores: &'a dyn Stores,
    free: Mutex<Option<EventStore>>,
    cases: AtomicUsize,
}

/// A store for one case.
pub(super) struct Case {
    pub(super) store: EventStore,
    /// What the case's names start with.
    pub(super) case: String,
    start: Position,
}

impl<'a> Reused<'a> {
    pub(super) fn of(stores: &'a dyn Stores) -> Self {
        Self { stores, free: Mutex::default(), cases: AtomicUsize::new(0) }
    }

    /// Takes the store. A case that panics does not give it back, so the next has a new one.
    pub(super) async fn take(&self) -> Case {
        let free = self.free.lock().unwrap().take();
        let store = match free {
            Some(store) => store,
            None => open(self.stores, EventStore::options()).await,
        };
        let case = format!("{} ", self.cases.fetch_add(1, Ordering::Relaxed));
        let start = store.safe_position().await.unwrap();
        Case { store, case, start }
    }

    pub(super) fn give_back(&self, case: Case) {
        *self.free.lock().unwrap() = Some(case.store);
    }
}

impl Case {
    fn stream(&self, number: u8) -> StreamId {
        let category = ["thing", "other"][usize::from(number) % 2];
        StreamId::new(category, format!("{}{number}", self.case)).unwrap()
    }

    /// What this case has recorded.
    pub(super) async fn log(&self) -> Vec<Recorded> {
        all(self.store.read_all(self.start)).await.unwrap()
    }
}

/// A load is the fold of the stream's events: now, at each version, at each position.
pub(crate) async fn a_load_is_a_fold_of_what_was_recorded(stores: &dyn Stores) {
    let reused = Reused::of(stores);
    check(24, vec((0..3u8, vec(-4..9i64, 0..4)), 1..12), async |commands| {
        let case = reused.take().await;
        let name = |number: u8| format!("{}{number}", case.case);
        for (number, by) in commands {
            match case.store.execute(Change::new(name(number), by)).await {
                Ok(_) | Err(ExecuteError::Rejected(_)) => {}
                Err(error) => panic!("{error}"),
            }
        }
        let log = case.log().await;
        for number in 0..3 {
            let (mut state, mut folds) = (Counter::default(), Vec::new());
            for event in log.iter().filter(|event| event.stream == counter(name(number))) {
                for decoded in event.clone().decode::<CounterEvent>().unwrap() {
                    state.apply(&decoded.event);
                }
                folds.push((state.clone(), event.version, event.position));
            }
            let load = async |as_of| {
                let loaded = match as_of {
                    None => case.store.load::<Counter>(name(number)).await,
                    Some(as_of) => case.store.load_as_of::<Counter>(name(number), as_of).await,
                };
                loaded.unwrap().map(|loaded| (loaded.state, loaded.version, loaded.position))
            };
            assert_eq!(load(None).await, folds.last().cloned());
            for version in 1..=folds.len() {
                let as_of = AsOf::Version(Version::NONE.plus(version));
                assert_eq!(load(Some(as_of)).await.as_ref(), folds.get(version - 1));
            }
            for event in &log {
                let then = folds.iter().rfind(|fold| fold.2 <= event.position);
                let loaded = load(Some(AsOf::Position(event.position))).await;
                assert_eq!(loaded.as_ref(), then, "as of position {}", event.position);
            }
        }
        reused.give_back(case);
    });
}

/// Pages of any size, read from any checkpoint with any filter, make up what the filter lets through.
pub(crate) async fn pages_of_any_size_make_up_the_log(stores: &dyn Stores) {
    let reused = Reused::of(stores);
    let filters =
        vec![None, Some(vec!["thing"]), Some(vec!["other"]), Some(vec!["thing", "other"])];
    let appends = vec((0..4u8, 1..6i64), 0..14);
    let limits = vec(1..9usize, 1..5);
    check(40, (appends, limits, select(filters)), async |(appends, limits, filter)| {
        let case = reused.take().await;
        for (number, count) in appends {
            let append = Append::to(case.stream(number), ExpectedVersion::Any, events(0..count));
            case.store.append(append).await.unwrap();
        }
        let filter: Option<Vec<_>> =
            filter.map(|names| names.into_iter().map(str::to_owned).collect());
        let safe = case.store.safe_position().await.unwrap();
        let (mut checkpoint, mut seen) = (case.start, Vec::new());
        for limit in limits.iter().copied().cycle() {
            let page = case.store.read_page(filter.as_deref(), checkpoint, safe, limit).await;
            let page = page.unwrap();
            assert!(page.len() <= limit);
            let full = page.len() == limit;
            checkpoint = page.last().map_or(checkpoint, |last| last.position);
            seen.extend(page);
            if !full {
                break;
            }
        }
        let mut expected = case.log().await;
        if let Some(names) = filter {
            expected.retain(|event| names.iter().any(|name| name == event.stream.category()));
        }
        assert_eq!(seen, expected);
        reused.give_back(case);
    });
}

/// An append under a key is recorded once, however often and when it is tried.
pub(crate) async fn a_retried_append_counts_once(stores: &dyn Stores) {
    let reused = Reused::of(stores);
    check(24, vec((0..5u8, option::weighted(0.3, 0..4u8)), 1..16), async |tries| {
        let case = reused.take().await;
        let mut first = HashMap::new();
        let mut count = 0;
        for (key, other) in tries {
            // The key settles the content; in between, others append to the same streams.
            let append = Append::to(case.stream(key), ExpectedVersion::Any, [event(key.into()); 1])
                .and(case.stream(key + 1), ExpectedVersion::Any, events(0..i64::from(key)));
            let append = match key {
                0 => Append::to(case.stream(0), ExpectedVersion::Any, [event(0)]),
                _ => append,
            };
            let keyed = append.idempotency_key(format!("{}{key}", case.case));
            let events = if key == 0 { 1 } else { 1 + usize::from(key) };
            let mut appended = case.store.append(keyed).await.unwrap();
            assert_eq!(appended.replayed, first.contains_key(&key));
            appended.replayed = false;
            let known = first.entry(key).or_insert_with(|| {
                count += events;
                appended.clone()
            });
            assert_eq!(*known, appended);
            if let Some(other) = other {
                let append = Append::to(case.stream(other), ExpectedVersion::Any, [event(9)]);
                case.store.append(append).await.unwrap();
                count += 1;
            }
        }
        assert_eq!(case.log().await.len(), count);
        reused.give_back(case);
    });
}

fn text() -> impl Strategy<Value = String> {
    // Quotes, backslashes, line breaks, what is written as two UTF-16 units; but no NUL.
    "[ -~\u{e9}\u{1F980}\n\t\"\\\\\u{7f}\u{2028}]{0,12}"
}

fn json() -> impl Strategy<Value = Value> {
    let finite = any::<f64>().prop_filter("JSON has finite numbers", |number| number.is_finite());
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        finite.prop_map(Value::from),
        text().prop_map(Value::from),
    ];
    leaf.prop_recursive(3, 24, 4, |inner| {
        let map = proptest::collection::hash_map(text(), inner.clone(), 0..4);
        let map = map.prop_map(|map| Value::Object(map.into_iter().collect()));
        prop_oneof![vec(inner, 0..4).prop_map(Value::from), map]
    })
}

/// Payloads byte for byte, metadata value for value, from the log and from the stream.
pub(crate) async fn what_is_written_comes_back(stores: &dyn Stores) {
    let reused = Reused::of(stores);
    let metadata = (text(), vec((text(), json()), 0..3));
    let one = ("[a-z][a-z0-9_./ -]{0,20}", 1..i32::MAX as u32, json(), metadata);
    check(60, vec(one, 1..6), async |written| {
        let case = reused.take().await;
        let new = written.iter().map(|(name, version, payload, (actor, custom))| {
            let payload = Payload::from_json(payload.to_string()).unwrap();
            let custom =
                custom.iter().fold(Metadata::new().actor(actor), |metadata, (key, value)| {
                    metadata.with(key, value.clone())
                });
            NewEvent::raw(name, *version, payload).metadata(custom)
        });
        let new: Vec<_> = new.collect();
        let stream = case.stream(0);
        let append = Append::to(stream.clone(), ExpectedVersion::NoStream, new.clone());
        case.store.append(append).await.unwrap();
        let log = case.log().await;
        assert_eq!(log.len(), new.len());
        for (new, event) in new.iter().zip(&log) {
            assert_eq!(event.id, new.id);
            assert_eq!(*event.event_type, *new.event_type);
            assert_eq!(event.schema_version, new.schema_version);
            assert_eq!(event.event, new.payload);
            assert_eq!(event.metadata, new.metadata);
        }
        assert_eq!(all(case.store.read_stream(&stream, Version::NONE)).await.unwrap(), log);
        reused.give_back(case);
    });
}

/// Appends side by side: those recorded are as if made in the order of their positions, and each
/// refused one had a reason at some moment.
pub(crate) async fn concurrent_appends_are_as_if_one_after_the_other(stores: &dyn Stores) {
    let reused = Reused::of(stores);
    let expected = prop_oneof![
        3 => Just(ExpectedVersion::Any),
        1 => Just(ExpectedVersion::NoStream),
        1 => Just(ExpectedVersion::Exists),
        3 => (0..8i64).prop_map(|version| ExpectedVersion::Exact(Version::new(version))),
    ];
    let part = (expected, 1..4usize);
    let append = vec(option::weighted(0.5, part), 4);
    check(40, vec(append, 2..16), async |appends| {
        let case = reused.take().await;
        let appends: Vec<_> = appends
            .into_iter()
            .map(|parts| {
                let parts = (0..).zip(parts).filter_map(|(stream, part)| Some((stream, part?)));
                parts.collect::<Vec<(u8, (ExpectedVersion, usize))>>()
            })
            .filter(|parts| !parts.is_empty())
            .collect();
        let outcomes = join_all(appends.iter().map(|parts| {
            let mut parts = parts.iter().map(|(stream, (expected, count))| {
                (case.stream(*stream), *expected, events(0..*count as i64))
            });
            let (stream, expected, new) = parts.next().unwrap();
            let append = Append::to(stream, expected, new);
            let append = parts
                .fold(append, |append, (stream, expected, new)| append.and(stream, expected, new));
            let store = case.store.clone();
            async move { tokio::spawn(async move { store.append(append).await }).await.unwrap() }
        }))
        .await;
        let mut recorded: Vec<_> = appends
            .iter()
            .zip(&outcomes)
            .filter_map(|(parts, outcome)| Some((outcome.as_ref().ok()?, parts)))
            .collect();
        recorded.sort_by_key(|(appended, _)| appended.first_position);
        let mut versions = HashMap::new();
        for (appended, parts) in recorded {
            for ((stream, (expected, count)), told) in parts.iter().zip(&appended.versions) {
                let version = versions.entry(case.stream(*stream)).or_insert(Version::NONE);
                assert!(expected.accepts(*version), "{expected} was taken at {version}");
                *version = version.plus(*count);
                assert_eq!(*told, (case.stream(*stream), *version));
            }
        }
        for error in outcomes.into_iter().filter_map(Result::err) {
            let Error::Conflict { stream, expected, actual } = error else { panic!("{error}") };
            assert!(!expected.accepts(actual), "{expected} was refused at {actual}");
            let last = versions.get(&stream).copied().unwrap_or_default();
            assert!(actual <= last, "{stream} was said to be at {actual}, it comes to {last} only");
        }
        let count: i64 = versions.values().map(|version| version.get()).sum();
        assert_eq!(case.log().await.len() as i64, count);
        reused.give_back(case);
    });
}

/// The log of the whole store is what its cases have recorded; so none sees another's.
#[cfg(test)]
#[tokio::test]
async fn a_case_that_fails_leaves_no_store_behind() {
    let reused = Reused::of(&super::InMemory);
    let first = reused.take().await;
    first.store.append(super::support::one(first.stream(0), 1)).await.unwrap();
    drop(first);
    let second = reused.take().await;
    assert!(second.log().await.is_empty());
    assert_eq!(second.start, Position::START);
}
