//! Archived events and times: nothing changes for who asks as of a time.

use annals_eventstore::{Error, EventQuery, EventStore, ExpectedVersion, ManualClock, Recorded};
use chrono::TimeDelta;

use super::{
    clock::at,
    support::{all, numbers, one, stream},
};

const ANY: ExpectedVersion = ExpectedVersion::Any;

pub(crate) async fn archiving_leaves_positions_as_of_times_as_they_were(
    store: &EventStore,
    clock: &ManualClock,
) {
    // One event a second, or several, of four streams.
    for number in 0..24 {
        clock.set(at(number / 3 * 2));
        store.append(one(stream(number % 4), number)).await.unwrap();
    }
    clock.set(at(100));
    let times = || (-1..30).map(|half| at(0) + TimeDelta::milliseconds(500 * half));
    let answers = async || {
        let mut answers = Vec::new();
        for time in times() {
            answers.push(store.position_at(time).await.unwrap());
        }
        answers
    };
    let whole = async |time| -> Vec<Recorded> {
        let query = EventQuery::log().include_archived().from_time(time);
        all(store.read(query)).await.unwrap()
    };
    let before = answers().await;
    let from_five = whole(at(5)).await;
    assert_eq!(numbers(&from_five), (9..24).collect::<Vec<_>>());
    // Also the first and the last event of the log, and in the end all.
    for index in [1, 3, 0, 2] {
        store.archive_stream(&stream(index), ANY).await.unwrap();
        assert_eq!(answers().await, before, "with stream {index} archived");
        assert_eq!(whole(at(5)).await, from_five);
    }
    for index in [0, 3] {
        store.restore_stream(&stream(index)).await.unwrap();
        assert_eq!(answers().await, before, "with stream {index} restored");
    }
}

pub(crate) async fn time_does_not_go_back_behind_an_archived_event(
    store: &EventStore,
    clock: &ManualClock,
) {
    store.append(one(stream("a"), 1)).await.unwrap();
    clock.set(at(10));
    store.append(one(stream("b"), 2)).await.unwrap();
    store.archive_stream(&stream("b"), ANY).await.unwrap();
    clock.set(at(5));
    match store.append(one(stream("a"), 3)).await.unwrap_err() {
        Error::ClockWentBack { given, last } => assert_eq!((given, last), (at(5), at(10))),
        error => panic!("{error:?}"),
    }
    clock.set(at(10));
    let appended = store.append(one(stream("a"), 3)).await.unwrap();
    let whole = all(store.read(EventQuery::log().include_archived())).await.unwrap();
    assert_eq!(numbers(&whole), [1, 2, 3]);
    assert_eq!(appended.last_position, whole[2].position);
}
