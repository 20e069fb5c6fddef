//! Stores with a supplied clock: recording times, and what was so as of a time.

use std::sync::{Arc, Mutex};

use annals_eventstore::{
    Append, AsOf, Envelope, Error, EventStore, ExpectedVersion, ManualClock, Position, Recorded,
    TimeSource,
};
use chrono::{DateTime, TimeDelta, Utc};

use super::support::{
    assert_sound,
    counter::{Change, Counter, Write},
    event, log, numbers, one, stream,
};

/// A clock at the start of the tests' time.
pub(crate) fn start() -> ManualClock {
    ManualClock::at(at(0))
}

/// That many seconds after the start.
pub(crate) fn at(seconds: i64) -> DateTime<Utc> {
    "2011-10-01T08:00:00.000001Z".parse::<DateTime<Utc>>().unwrap() + TimeDelta::seconds(seconds)
}

fn times(log: &[Recorded]) -> Vec<DateTime<Utc>> {
    log.iter().map(|event| event.recorded_at).collect()
}

pub(crate) async fn events_bear_the_time_of_the_clock(store: &EventStore, clock: &ManualClock) {
    store.append(one(stream("a"), 1)).await.unwrap();
    clock.set(at(1) + TimeDelta::nanoseconds(999));
    store.append(one(stream("b"), 2)).await.unwrap();
    store.execute(Change::new("c", [3])).await.unwrap();
    // PostgreSQL keeps microseconds.
    assert_eq!(times(&log(store).await), [at(0), at(1), at(1)]);
}

pub(crate) async fn events_bear_the_time_that_they_bring(store: &EventStore, clock: &ManualClock) {
    clock.set(at(100));
    let brought =
        [event(1).recorded_at(at(-5)), event(2).recorded_at(at(-5)), event(3).recorded_at(at(7))];
    store.append(Append::to(stream("a"), ExpectedVersion::Any, brought)).await.unwrap();
    store.append(one(stream("a"), 4)).await.unwrap();
    assert_eq!(times(&log(store).await), [at(-5), at(-5), at(7), at(100)]);
}

pub(crate) async fn time_may_stand_still_but_not_go_back(store: &EventStore, clock: &ManualClock) {
    clock.set(at(10));
    store.append(one(stream("a"), 1)).await.unwrap();
    store.append(one(stream("a"), 2)).await.unwrap();
    let earlier = event(3).recorded_at(at(10) - TimeDelta::microseconds(1));
    let by_event = Append::to(stream("a"), ExpectedVersion::Any, [earlier]);
    clock.set(at(9));
    let by_clock = one(stream("b"), 3);
    for (append, given) in [(by_event, at(10) - TimeDelta::microseconds(1)), (by_clock, at(9))] {
        match store.append(append).await {
            Err(Error::ClockWentBack { given: named, last }) => {
                assert_eq!((named, last), (given, at(10)))
            }
            other => panic!("time went back: {other:?}"),
        }
    }
    // The refusal leaves nothing behind and nothing broken.
    clock.set(at(10));
    store.append(one(stream("b"), 4)).await.unwrap();
    let log = log(store).await;
    assert_eq!(numbers(&log), [1, 2, 4]);
    assert_eq!(times(&log), [at(10), at(10), at(10)]);
}

pub(crate) async fn time_does_not_go_back_within_an_append(store: &EventStore, _: &ManualClock) {
    let events = [event(1).recorded_at(at(5)), event(2).recorded_at(at(4))];
    let error =
        store.append(Append::to(stream("a"), ExpectedVersion::Any, events)).await.unwrap_err();
    assert!(matches!(error, Error::ClockWentBack { .. }), "{error}");
    assert!(log(store).await.is_empty());
}

pub(crate) async fn commands_bear_the_time_that_they_bring(
    store: &EventStore,
    clock: &ManualClock,
) {
    clock.set(at(50));
    let timed = |by: &[i64], seconds| Envelope::new(Change::new("a", by)).recorded_at(at(seconds));
    let outcomes = store
        .execute_all([timed(&[1, 2], 3), timed(&[3], 4), timed(&[4], 2), timed(&[5], 4)])
        .await
        .unwrap();
    // The third is refused, alone: it is earlier than the second.
    let refused = outcomes[2].as_ref().unwrap_err();
    assert!(refused.to_string().contains("time never goes back"), "{refused}");
    assert!(outcomes.iter().filter(|outcome| outcome.is_ok()).count() == 3, "{outcomes:?}");
    let log = log(store).await;
    assert_eq!(times(&log), [at(3), at(3), at(4), at(4)]);
    assert_sound(&log);
}

pub(crate) async fn a_position_as_of_a_time_is_that_of_a_fold(
    store: &EventStore,
    clock: &ManualClock,
) {
    let mut now = 0;
    // Time stands still at times, also over several appends, and passes by different steps.
    for (number, step) in (0..60).map(|number| (number, [0, 1, 0, 0, 7, 2][number as usize % 6])) {
        now += step;
        clock.set(at(now));
        store.append(one(stream(number % 3), number)).await.unwrap();
    }
    clock.set(at(now + 10));
    let log = log(store).await;
    for half_seconds in -4..2 * (now + 10) {
        let time = at(0) + TimeDelta::milliseconds(500 * half_seconds);
        let fold = log.iter().take_while(|event| event.recorded_at <= time).last();
        let expected = fold.map_or(Position::START, |event| event.position);
        assert_eq!(store.position_at(time).await.unwrap(), expected, "as of {time}");
        // And asked again.
        assert_eq!(store.position_at(time).await.unwrap(), expected, "as of {time}");
    }
    for time in [at(now + 10), at(now + 11)] {
        match store.position_at(time).await {
            Err(Error::Future { at: asked, now: clock }) => {
                assert_eq!((asked, clock), (time, at(now + 10)))
            }
            other => panic!("as of {time}: {other:?}"),
        }
    }
}

pub(crate) async fn an_aggregate_as_of_a_time_is_that_of_a_fold(
    store: &EventStore,
    clock: &ManualClock,
) {
    let load = async |seconds| {
        let loaded = store.load_as_of::<Counter>("a", AsOf::Time(at(seconds))).await.unwrap();
        loaded.map(|loaded| (loaded.state.total, loaded.version.get()))
    };
    for (seconds, counter, by) in
        [(10, "a", 1), (10, "b", 100), (20, "a", 2), (20, "a", 4), (30, "b", 200)]
    {
        clock.set(at(seconds));
        store.execute(Change::new(counter, [by])).await.unwrap();
    }
    clock.set(at(40));
    assert_eq!(load(-1).await, None);
    assert_eq!(load(9).await, None);
    assert_eq!(load(10).await, Some((1, 1)));
    assert_eq!(load(19).await, Some((1, 1)));
    assert_eq!(load(20).await, Some((7, 3)));
    assert_eq!(load(39).await, Some((7, 3)));
    let error = store.load_as_of::<Counter>("a", AsOf::Time(at(40))).await.unwrap_err();
    assert!(matches!(error, Error::Future { .. }), "{error}");
    assert!(!error.is_retryable());
    let unknown = store.load_as_of::<Counter>("c", AsOf::Time(at(39))).await.unwrap();
    assert_eq!(unknown, None);
}

/// An event that brings a time stands beside one that takes the clock's, in one append or one lot.
pub(crate) async fn brought_and_own_times_do_not_go_back_together(
    store: &EventStore,
    clock: &ManualClock,
) {
    clock.set(at(5));
    let events = [event(1).recorded_at(at(10)), event(2)];
    // Refused or not: time must not go back in the log.
    drop(store.append(Append::to(stream("a"), ExpectedVersion::Any, events)).await);
    assert_sound(&log(store).await);
    let brings = Envelope::new(Change::new("a", [1])).recorded_at(at(20));
    drop(store.execute_all([brings, Change::new("a", [1]).into()]).await);
    assert_sound(&log(store).await);
}

pub(crate) async fn an_answer_as_of_a_time_is_final(store: &EventStore, clock: &ManualClock) {
    clock.set(at(10));
    let append =
        |time| Append::to(stream("a"), ExpectedVersion::Any, [event(1).recorded_at(at(time))]);
    store.append(append(3)).await.unwrap();
    store.append(append(8)).await.unwrap();
    let answer = store.position_at(at(7)).await.unwrap();
    // With an event recorded after it, a time is over.
    let between = store.append(append(5)).await;
    assert!(matches!(between, Err(Error::ClockWentBack { .. })), "{between:?}");
    assert_eq!(store.position_at(at(7)).await.unwrap(), answer);
}

/// A command that fails must not count: neither its time nor its events.
pub(crate) async fn a_failed_command_leaves_no_time_behind(
    store: &EventStore,
    clock: &ManualClock,
) {
    clock.set(at(100));
    // Its first event is good, its second too large.
    let failing = Envelope::new(Write::new("a", [10, 800 * 1024])).recorded_at(at(50));
    let earlier = Envelope::new(Write::new("a", [10])).recorded_at(at(20));
    let outcomes = store.execute_all([failing, earlier]).await.unwrap();
    assert!(outcomes[0].is_err());
    assert!(outcomes[1].is_ok(), "{:?}", outcomes[1]);
}

/// Appends that bring no time and run side by side; the clock passes meanwhile.
pub(crate) async fn a_clock_that_passes_refuses_nobody(store: &EventStore, clock: &ManualClock) {
    let ticking = Arc::new(Mutex::new(()));
    let appends = (0..20).map(|task| {
        let (store, clock, ticking) = (store.clone(), clock.clone(), Arc::clone(&ticking));
        tokio::spawn(async move {
            for round in 0..20 {
                {
                    let _tick = ticking.lock().unwrap();
                    clock.set(clock.now() + TimeDelta::microseconds(1));
                }
                store.append(one(stream(task), round)).await?;
            }
            Ok::<_, Error>(())
        })
    });
    for outcome in futures::future::join_all(appends).await {
        outcome.unwrap().unwrap();
    }
    assert_sound(&log(store).await);
}
