//! The aggregate cache changes how fast things are, and never what they come to.

use std::sync::atomic::{AtomicUsize, Ordering};

use annals_eventstore::{Append, EventStore, ExecuteError, ExpectedVersion, NewEvent, Version};
use proptest::{collection::vec, prelude::*};

use super::{
    laws,
    support::{
        counter::{BelowZero, Change, Counter, CounterEvent, Write, counter, load},
        history,
    },
};

/// Changes a counter behind the back of the cache, as another process does.
async fn change_elsewhere(store: &EventStore, key: &str, by: i64) {
    let event = NewEvent::of(&CounterEvent::Changed { by }).unwrap();
    store.append(Append::to(counter(key), ExpectedVersion::Any, [event])).await.unwrap();
}

/// What the log says that a counter is.
async fn folded(store: &EventStore, key: &str) -> Counter {
    let mut state = Counter::default();
    for event in history(store, &counter(key)).await {
        for event in event.decode::<CounterEvent>().unwrap() {
            annals_eventstore::Apply::apply(&mut state, &event.event);
        }
    }
    state
}

pub(crate) async fn what_others_append_is_decided_on(store: &EventStore) {
    store.execute(Change::new("a", [5])).await.unwrap();
    change_elsewhere(store, "a", 10).await;
    let committed = store.execute(Change::new("a", [-12])).await.unwrap();
    assert_eq!(committed.version, Version::new(3));
    change_elsewhere(store, "a", -3).await;
    let refused = store.execute(Change::new("a", [-1])).await;
    assert!(
        matches!(&refused, Err(ExecuteError::Rejected(BelowZero { total: 0, by: -1 }))),
        "{refused:?}"
    );
}

pub(crate) async fn a_command_without_events_knows_what_others_appended(store: &EventStore) {
    store.execute(Change::new("a", [5])).await.unwrap();
    change_elsewhere(store, "a", 1).await;
    let nothing = store.execute(Change::new("a", [])).await.unwrap();
    assert_eq!((nothing.version, nothing.events), (Version::new(2), 0));
}

pub(crate) async fn a_load_knows_what_others_appended(store: &EventStore) {
    for number in 1..=3 {
        store.execute(Change::new("a", [1])).await.unwrap();
        change_elsewhere(store, "a", 1).await;
        let loaded = load(store, "a").await;
        assert_eq!((loaded.state.total, loaded.version.get()), (2 * number, 2 * number));
        let log = history(store, &counter("a")).await;
        assert_eq!(Some(loaded.position), log.last().map(|event| event.position));
    }
}

pub(crate) async fn what_was_not_recorded_is_not_remembered(store: &EventStore) {
    store.execute(Change::new("a", [5])).await.unwrap();
    // The second command rests on the first, and its event is too large.
    let lot = [Write::new("a", [1]), Write::new("a", [1_000_000])];
    let outcomes = store.execute_all(lot).await.unwrap();
    assert!(outcomes[0].is_ok() && outcomes[1].is_err(), "{outcomes:?}");
    store.execute(Change::new("a", [-6])).await.unwrap_err();
    change_elsewhere(store, "a", 1).await;
    // Decided twice on top of each other, and again after the conflict.
    let lot = [Change::new("a", [-1]), Change::new("a", [-5]), Change::new("a", [-1])];
    let outcomes = store.execute_all(lot).await.unwrap();
    assert!(outcomes[0].is_ok() && outcomes[1].is_ok() && outcomes[2].is_err(), "{outcomes:?}");
    assert_eq!(load(store, "a").await.state, folded(store, "a").await);
}

pub(crate) async fn a_dropped_command_leaves_no_trace_in_the_cache(store: &EventStore) {
    store.execute(Change::new("a", [5])).await.unwrap();
    for _ in 0..20 {
        // Dropped after one poll: it may have been recorded or not.
        let execute = std::pin::pin!(store.execute(Change::new("a", [1])));
        drop(futures::poll!(execute));
        store.execute(Change::new("a", [1])).await.unwrap();
    }
    // The last that was dropped may still be under way: what is loaded is a fold up to its version.
    let loaded = load(store, "a").await;
    let mut state = Counter::default();
    for event in history(store, &counter("a")).await {
        if event.version <= loaded.version {
            for event in event.decode::<CounterEvent>().unwrap() {
                annals_eventstore::Apply::apply(&mut state, &event.event);
            }
        }
    }
    assert_eq!(loaded.state, state);
    assert!(loaded.version.get() >= 21);
}

#[derive(Clone, Debug)]
enum Step {
    Execute(u8, Vec<i64>),
    ExecuteAll(Vec<(u8, Vec<i64>)>),
    Elsewhere(u8, i64),
    Load(u8),
}

fn step() -> impl Strategy<Value = Step> {
    let command = || (0..3u8, vec(-4..6i64, 0..3));
    prop_oneof![
        4 => command().prop_map(|(key, by)| Step::Execute(key, by)),
        2 => vec(command(), 0..5).prop_map(Step::ExecuteAll),
        2 => (0..3u8, 0..5i64).prop_map(|(key, by)| Step::Elsewhere(key, by)),
        1 => (0..3u8).prop_map(Step::Load),
    ]
}

/// What a step came to, as text.
async fn outcome(store: &EventStore, prefix: &str, step: &Step) -> String {
    let key = |number: &u8| format!("{prefix}{number}");
    let told =
        |outcome: Result<annals_eventstore::Committed, ExecuteError<BelowZero>>| match outcome {
            Ok(committed) => format!("{} {}", committed.version, committed.events),
            Err(error) => format!("{error:?}"),
        };
    match step {
        Step::Execute(counter, by) => {
            told(store.execute(Change::new(key(counter), by.clone())).await)
        }
        Step::ExecuteAll(commands) => {
            let commands = commands.iter().map(|(to, by)| Change::new(key(to), by.clone()));
            let outcomes = store.execute_all(commands).await.unwrap();
            outcomes.into_iter().map(told).collect::<Vec<_>>().join(", ")
        }
        Step::Elsewhere(counter, by) => {
            change_elsewhere(store, &key(counter), *by).await;
            String::new()
        }
        Step::Load(counter) => {
            let loaded = store.load::<Counter>(key(counter)).await.unwrap();
            format!("{:?}", loaded.map(|loaded| (loaded.state, loaded.version)))
        }
    }
}

pub(crate) async fn whatever_is_done_comes_to_the_same_without_a_cache(store: &EventStore) {
    let steps = vec(step(), 1..20);
    let cases = AtomicUsize::new(0);
    laws::check(24, steps, async |steps| {
        let without = EventStore::options().cache_bytes(0).in_memory();
        let prefix = format!("case{}-", cases.fetch_add(1, Ordering::Relaxed));
        for step in &steps {
            let expected = outcome(&without, &prefix, step).await;
            assert_eq!(outcome(store, &prefix, step).await, expected, "{step:?}");
        }
    });
}
