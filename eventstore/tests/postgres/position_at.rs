//! The position as of a time: equal to a fold, and final.

use std::time::Duration;

use annals_eventstore::{
    Append, AsOf, Clock, Error, EventStore, ExpectedVersion, ManualClock, Position,
};
use chrono::{DateTime, TimeDelta, Utc};
use proptest::{collection::vec, prelude::*, test_runner::TestRunner};

use crate::support::{
    TestDatabase,
    counter::{Change, Counter, counter},
    direct, event, history, is_waiting, json, log, one, stream,
};

fn start() -> DateTime<Utc> {
    "2011-10-01T08:00:00Z".parse().unwrap()
}

/// What there is of a log: appends after a pause, or positions that were drawn in vain.
#[derive(Clone, Debug)]
enum Piece {
    Append { pause: i64, events: usize },
    Hole(usize),
}

fn piece() -> impl Strategy<Value = Piece> {
    prop_oneof![
        4 => (prop_oneof![Just(0i64), 1..4i64], 1..4usize)
            .prop_map(|(pause, events)| Piece::Append { pause, events }),
        1 => (1..9usize).prop_map(Piece::Hole),
    ]
}

#[test]
fn the_position_as_of_any_time_is_that_of_a_fold() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let database = runtime.block_on(TestDatabase::create());
    let config = ProptestConfig {
        cases: 20,
        max_shrink_iters: 200,
        failure_persistence: None,
        ..Default::default()
    };
    let outcome = TestRunner::new(config).run(&vec(piece(), 0..25), |pieces| {
        runtime.block_on(async {
            let mut client = database.client().await;
            client.batch_execute("drop schema if exists annals cascade").await.unwrap();
            let clock = ManualClock::at(start());
            let options = EventStore::options().clock(Clock::supplied(clock.clone()));
            let store = database.store_with(options).await;
            let mut now = 0;
            for piece in pieces {
                match piece {
                    Piece::Append { pause, events } => {
                        now += pause;
                        clock.set(start() + TimeDelta::microseconds(now));
                        let events = (0..events as i64).map(event);
                        store
                            .append(Append::to(stream("a"), ExpectedVersion::Any, events))
                            .await
                            .unwrap();
                    }
                    Piece::Hole(events) => {
                        let transaction = client.transaction().await.unwrap();
                        direct::append(&transaction, "b", &direct::ids(events)).await.unwrap();
                        transaction.rollback().await.unwrap();
                    }
                }
            }
            let end = now + 2;
            clock.set(start() + TimeDelta::microseconds(end));
            let log = log(&store).await;
            for micros in -1..end {
                let time = start() + TimeDelta::microseconds(micros);
                let fold = log.iter().take_while(|event| event.recorded_at <= time).last();
                let expected = fold.map_or(Position::START, |event| event.position);
                assert_eq!(
                    store.position_at(time).await.unwrap(),
                    expected,
                    "as of {micros} of {end}"
                );
            }
            let future = store.position_at(start() + TimeDelta::microseconds(end)).await;
            assert!(matches!(future, Err(Error::Future { .. })), "{future:?}");
        });
        Ok(())
    });
    if let Err(failure) = outcome {
        panic!("{failure}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn by_the_databases_clock_it_is_that_of_a_fold_too() {
    let database = TestDatabase::create().await;
    let store = database.store().await;
    for round in 0..40 {
        let append =
            Append::to(stream(round % 3), ExpectedVersion::Any, [event(round), event(round)]);
        store.append(append).await.unwrap();
    }
    let log = log(&store).await;
    let tick = TimeDelta::microseconds(1);
    for event in &log {
        for time in [event.recorded_at - tick, event.recorded_at, event.recorded_at + tick] {
            let fold = log.iter().take_while(|event| event.recorded_at <= time).last();
            let expected = fold.map_or(Position::START, |event| event.position);
            assert_eq!(store.position_at(time).await.unwrap(), expected, "as of {time}");
        }
    }
}

/// The database's time.
async fn now(client: &tokio_postgres::Client) -> DateTime<Utc> {
    client.query_one("select clock_timestamp()", &[]).await.unwrap().get(0)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_waits_for_an_append_that_could_change_it() {
    let database = TestDatabase::create().await;
    let store = database.store().await;
    let first = store.append(one(stream("a"), 1)).await.unwrap().last_position;
    let mut client = database.client().await;
    let watcher = database.client().await;
    let before = now(&watcher).await;
    let held = client.transaction().await.unwrap();
    let position = direct::append(&held, "b", &direct::ids(1)).await.unwrap();
    let after = now(&watcher).await;

    // Up to a time before the held append, nothing can change any more; yet nothing later is there
    // to prove it, so this may wait. After it, this must wait.
    let mut asking = Box::pin(store.position_at(after));
    assert!(is_waiting(&mut asking).await, "an append as old as that is in flight");
    let later = store.append(one(stream("c"), 2)).await.unwrap().last_position;
    assert!(is_waiting(&mut asking).await, "a later event does not settle it");
    let mut loading = Box::pin(store.load_as_of::<Counter>("x", AsOf::Time(after)));
    assert!(is_waiting(&mut loading).await, "an aggregate is not loaded before it is settled");
    held.commit().await.unwrap();
    assert_eq!(asking.await.unwrap(), Position::new(position));
    assert_eq!(loading.await.unwrap(), None);
    assert_eq!(store.position_at(before).await.unwrap(), first);
    assert!(later > Position::new(position));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_waits_for_an_append_that_is_rolled_back_in_the_end() {
    let database = TestDatabase::create().await;
    let store = database.store().await;
    let first = store.append(one(stream("a"), 1)).await.unwrap().last_position;
    let mut client = database.client().await;
    let watcher = database.client().await;
    let held = client.transaction().await.unwrap();
    direct::append(&held, "b", &direct::ids(3)).await.unwrap();
    let after = now(&watcher).await;
    let mut asking = Box::pin(store.position_at(after));
    assert!(is_waiting(&mut asking).await);
    held.rollback().await.unwrap();
    assert_eq!(asking.await.unwrap(), first);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_does_not_wait_for_appends_above_a_later_event() {
    let database = TestDatabase::create().await;
    let store = database.store().await;
    let watcher = database.client().await;
    let first = store.append(one(stream("a"), 1)).await.unwrap().last_position;
    let between = now(&watcher).await;
    store.append(one(stream("a"), 2)).await.unwrap();
    let mut client = database.client().await;
    let held = client.transaction().await.unwrap();
    direct::append(&held, "b", &direct::ids(1)).await.unwrap();
    assert_eq!(store.position_at(between).await.unwrap(), first);
    held.rollback().await.unwrap();
}

/// The answer of each moment, asked while appends come and go, is the same when asked again later.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_answered_stays_so() {
    let database = TestDatabase::create().await;
    let store = database.store().await;
    let watcher = database.client().await;
    let writers = (0..4).map(|writer| {
        let store = store.clone();
        tokio::spawn(async move {
            for _ in 0..60 {
                let event = json(r#"{"by":1}"#);
                let append = Append::to(counter(writer), ExpectedVersion::Any, [event]);
                store.append(append).await.unwrap();
            }
        })
    });
    let writing = tokio::spawn(futures::future::join_all(writers));
    let mut answers = Vec::new();
    while !writing.is_finished() {
        let time = now(&watcher).await;
        answers.push((time, store.position_at(time).await.unwrap()));
    }
    assert!(answers.len() > 3, "the test tests nothing");
    let log = log(&store).await;
    for (time, answer) in answers {
        let fold = log.iter().take_while(|event| event.recorded_at <= time).last();
        assert_eq!(answer, fold.map_or(Position::START, |event| event.position), "as of {time}");
    }
}

/// An event that was acknowledged is not beyond the end, whatever is in flight below it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_acknowledged_position_can_be_asked_for() {
    let database = TestDatabase::create().await;
    let store = database.store().await;
    let mut client = database.client().await;
    let held = client.transaction().await.unwrap();
    direct::append(&held, "b", &direct::ids(1)).await.unwrap();
    let own = store.execute(Change::new("a", [1])).await.unwrap();
    // It may wait for what is in flight, and it must not say that the log ends before.
    let mut loading = Box::pin(store.load_as_of::<Counter>("a", AsOf::Position(own.position)));
    let settled = tokio::time::timeout(Duration::from_millis(400), &mut loading).await;
    held.commit().await.unwrap();
    let loaded = match settled {
        Ok(loaded) => loaded,
        Err(_) => loading.await,
    };
    assert_eq!(loaded.unwrap().unwrap().state.total, 1);
}

/// Questions that wait must not keep all others waiting, and none that was given up.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn questions_that_wait_leave_room_for_others() {
    let database = TestDatabase::create().await;
    let store = database.store().await;
    store.append(one(stream("a"), 1)).await.unwrap();
    let mut client = database.client().await;
    let watcher = database.client().await;
    let held = client.transaction().await.unwrap();
    direct::append(&held, "b", &direct::ids(1)).await.unwrap();
    let after = now(&watcher).await;
    let given_up =
        (0..12).map(|_| tokio::time::timeout(Duration::from_millis(300), store.position_at(after)));
    assert!(futures::future::join_all(given_up).await.iter().all(Result::is_err));
    // A stream has nothing to do with it.
    let a = stream("a");
    let read = tokio::time::timeout(Duration::from_secs(10), history(&store, &a)).await;
    held.commit().await.unwrap();
    assert_eq!(read.expect("reading a stream waits for nothing").len(), 1);
}

/// Whatever the database's settings say of transactions.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_is_final_in_a_database_of_stricter_isolation() {
    let database = TestDatabase::create().await;
    let strict = "alter database {} set default_transaction_isolation = 'repeatable read'";
    let client = database.client().await;
    let name: String = client.query_one("select current_database()", &[]).await.unwrap().get(0);
    client.batch_execute(&strict.replace("{}", &name)).await.unwrap();
    let store = database.store().await;
    let mut client = database.client().await;
    let held = client.transaction().await.unwrap();
    let position = direct::append(&held, "b", &direct::ids(1)).await.unwrap();
    let after = now(&database.client().await).await;
    let mut asking = Box::pin(store.position_at(after));
    assert!(is_waiting(&mut asking).await);
    held.commit().await.unwrap();
    assert_eq!(asking.await.unwrap(), Position::new(position));
}
