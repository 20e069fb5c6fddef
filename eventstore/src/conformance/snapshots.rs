//! Loading from a snapshot is folding all events, only sooner.

use std::sync::atomic::{AtomicUsize, Ordering};

use annals_eventstore::{
    Aggregate, Append, AsOf, Error, EventStore, ExpectedVersion, NewEvent, Version,
};
use proptest::{collection::vec, prelude::*};

use super::{
    laws,
    support::{
        counter::{CounterEvent, counter},
        history,
        snapshots::{
            AfterATime, ByHand, EveryOne, EveryThree, KeepTwo, Plain, dropped, earlier, first,
            raised, upcast,
        },
    },
};

async fn append(store: &EventStore, key: &str, numbers: &[i64]) {
    let event = |by: &i64| NewEvent::of(&CounterEvent::Changed { by: *by }).unwrap();
    let events: Vec<_> = numbers.iter().map(event).collect();
    store.append(Append::to(counter(key), ExpectedVersion::Any, events)).await.unwrap();
}

/// Loads an aggregate now and at each version and position, and compares it with a fold of all.
async fn check<A: Aggregate>(store: &EventStore, key: &str, seen: impl Fn(&A) -> (i64, Vec<i64>)) {
    let log = history(store, &counter(key)).await;
    let mut expected = Plain::default();
    for event in log {
        let (version, position) = (event.version, event.position);
        for event in event.decode().unwrap() {
            annals_eventstore::Apply::apply(&mut expected, &event.event);
        }
        for moment in [AsOf::Version(version), AsOf::Position(position)] {
            let then = store.load_as_of::<A>(key, moment).await.unwrap().unwrap();
            assert_eq!(seen(&then.state), (expected.total, expected.last.clone()));
            assert_eq!((then.version, then.position), (version, position));
        }
    }
    let now = store.load::<A>(key).await.unwrap().unwrap();
    assert_eq!(seen(&now.state), (expected.total, expected.last));
}

macro_rules! check_each {
    ($store:ident $key:ident $($aggregate:ident)*) => {
        $(check::<$aggregate>($store, &$key, |a| (a.total, a.last.clone())).await;)*
    };
}

pub(crate) async fn a_load_with_snapshots_equals_a_fold_of_all(store: &EventStore) {
    let appends = vec((vec(-9..9i64, 1..5), any::<bool>()), 1..5);
    let cases = AtomicUsize::new(0);
    laws::check(8, appends, async |appends| {
        let key = format!("case-{}", cases.fetch_add(1, Ordering::Relaxed));
        for (numbers, by_hand) in &appends {
            append(store, &key, numbers).await;
            if *by_hand {
                store.snapshot::<ByHand>(&key).await.unwrap();
            }
            check_each!(store key EveryOne EveryThree KeepTwo AfterATime ByHand);
        }
    });
}

pub(crate) async fn a_snapshot_by_hand_is_of_the_state_as_it_is(store: &EventStore) {
    assert_eq!(store.snapshot::<ByHand>("a").await.unwrap(), None);
    append(store, "a", &[1, 2]).await;
    assert_eq!(store.snapshot::<ByHand>("a").await.unwrap(), Some(Version::new(2)));
    assert_eq!(store.snapshot::<ByHand>("a").await.unwrap(), Some(Version::new(2)));
    append(store, "a", &[3]).await;
    assert_eq!(store.snapshot::<ByHand>("a").await.unwrap(), Some(Version::new(3)));
    assert_eq!(store.load::<ByHand>("a").await.unwrap().unwrap().state.last, [1, 2, 3]);
}

pub(crate) async fn a_snapshot_of_another_shape_is_ignored(store: &EventStore) {
    append(store, "a", &[1, 2]).await;
    for _ in 0..3 {
        store.snapshot::<earlier::EveryOne>("a").await.unwrap();
        let now = store.load::<EveryOne>("a").await.unwrap().unwrap();
        assert_eq!((now.state.total, now.state.last), (3, vec![1, 2]));
        store.snapshot::<EveryOne>("a").await.unwrap();
        let before = store.load::<earlier::EveryOne>("a").await.unwrap().unwrap();
        assert_eq!(before.state.total, 6);
    }
}

pub(crate) async fn a_snapshot_from_before_another_fold_is_ignored(store: &EventStore) {
    append(store, "a", &[1, 2]).await;
    for _ in 0..2 {
        macro_rules! check {
            ($($program:ident $total:literal)*) => { $(
                // Each program starts from what the one before left.
                let now = store.load::<$program::Refolded>("a").await.unwrap().unwrap();
                assert_eq!(now.state.total, $total, stringify!($program));
                store.snapshot::<$program::Refolded>("a").await.unwrap();
                let again = store.load::<$program::Refolded>("a").await.unwrap().unwrap();
                assert_eq!(again.state.total, $total, stringify!($program));
            )* };
        }
        check!(first 6 raised 9 upcast 30 dropped 0);
    }
}

pub(crate) async fn an_aggregate_without_snapshots_refuses_one(store: &EventStore) {
    append(store, "a", &[1]).await;
    let refused = store.snapshot::<Plain>("a").await;
    assert!(matches!(refused, Err(Error::NoSnapshots { category: "counter" })), "{refused:?}");
}
