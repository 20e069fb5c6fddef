//! What appends in flight do to readers, step by step.

use std::time::Duration;

use annals_eventstore::{EventStore, Position, StreamId, postgres::InFlight};
use chrono::{DateTime, Utc};
use metrics_util::debugging::{DebugValue, DebuggingRecorder, Snapshotter};

use crate::support::{
    TestDatabase, all, assert_sound, direct, eventually, kill, log, number, numbers, one, stream,
    warnings::Warnings,
};

/// What a reader sees now after a position.
async fn seen(store: &EventStore, after: Position) -> Vec<i64> {
    all(store.read_all(after)).await.unwrap().iter().map(|event| event.position.get()).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_open_append_delays_readers_at_its_positions_only() {
    let database = TestDatabase::create().await;
    let store = database.store().await;
    let mut client = database.client().await;
    store.append(one(stream("a"), 1)).await.unwrap();
    let held = client.transaction().await.unwrap();
    let position = direct::append(&held, "b", &direct::ids(2)).await.unwrap();
    assert_eq!(position, 2);
    let later = store.append(one(stream("c"), 4)).await.unwrap();
    assert_eq!(later.first_position.get(), 4);

    // What is below stays readable, and what is above waits.
    assert_eq!(store.safe_position().await.unwrap(), Position::new(1));
    assert_eq!(seen(&store, Position::START).await, [1]);
    let look = async |after| {
        let end = Position::new(i64::MAX);
        let (safe, events) = store.look(None, after, end, 10, usize::MAX).await.unwrap();
        let seen: Vec<_> = events.iter().map(|event| event.position.get()).collect();
        (safe.get(), seen)
    };
    assert_eq!(look(Position::START).await, (1, vec![1]));
    // Also where it has lasted, and the two are asked in turn.
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert_eq!(look(Position::START).await, (1, vec![1]));
    // A stream is readable to its end; it has an order of its own.
    assert_eq!(all(store.read_stream(&stream("c"), Default::default())).await.unwrap().len(), 1);
    held.commit().await.unwrap();
    assert_eq!(store.safe_position().await.unwrap(), Position::new(4));
    assert_eq!(seen(&store, Position::new(1)).await, [2, 3, 4]);
    assert_eq!(look(Position::new(1)).await, (4, vec![2, 3, 4]));
    assert_sound(&log(&store).await);
}

/// Who runs the store learns which server process it is that readers wait for.
#[tokio::test]
async fn an_open_append_is_named_with_its_process() {
    let database = TestDatabase::create().await;
    let options = EventStore::options().held_back_warning(Duration::ZERO);
    let store = database.store_with(options).await;
    let warnings = Warnings::capture();
    store.append(one(stream("a"), 1)).await.unwrap();
    assert_eq!(store.in_flight().await.unwrap(), []);

    let mut pids = Vec::new();
    let mut clients = Vec::new();
    for name in ["first", "second"] {
        let client = database.client_as(name).await;
        client.batch_execute("begin").await.unwrap();
        direct::append(&client, name, &direct::ids(2)).await.unwrap();
        // A second append in one transaction is still that transaction.
        direct::append(&client, name, &direct::ids(1)).await.unwrap();
        let pid = client.query_one("select pg_backend_pid(), now()", &[]).await.unwrap();
        pids.push((pid.get::<_, i32>(0), pid.get::<_, DateTime<Utc>>(1)));
        clients.push(client);
    }
    let named = |in_flight: Vec<InFlight>| {
        let named = in_flight.into_iter();
        named.map(|a| (a.after.get(), a.pid, a.application_name, a.since)).collect::<Vec<_>>()
    };
    let expected: Vec<_> = std::iter::zip([(1, "first"), (4, "second")], pids)
        .map(|((after, name), (pid, since))| (after, Some(pid), name.to_owned(), Some(since)))
        .collect();
    assert_eq!(named(store.in_flight().await.unwrap()), expected);

    // Once is seen, twice is held back.
    for _ in 0..2 {
        assert_eq!(warnings.text(), "");
        assert_eq!(store.safe_position().await.unwrap(), Position::new(1));
    }
    let warned = warnings.text();
    let pid = format!("pid={}", expected[0].1.unwrap());
    assert_eq!(warned.lines().count(), 1, "{warned}");
    assert!(warned.contains(&pid) && warned.contains("\"first\""), "{warned}");

    clients[0].batch_execute("commit").await.unwrap();
    assert_eq!(named(store.in_flight().await.unwrap()), expected[1..]);
    clients[1].batch_execute("rollback").await.unwrap();
    assert_eq!(store.in_flight().await.unwrap(), []);
    for _ in 0..3 {
        assert_eq!(store.safe_position().await.unwrap(), Position::new(7));
    }
    assert_eq!(warnings.text(), warned, "nobody holds readers back any more");
}

/// The gauge of open appends: each with its process and its age.
fn ages(snapshotter: &Snapshotter) -> Vec<(String, f64)> {
    let mut ages = Vec::new();
    for (key, unit, description, value) in snapshotter.snapshot().into_vec() {
        let key = key.key();
        if key.name() != "annals_oldest_append_in_flight_seconds" {
            continue;
        }
        assert!(unit == Some(metrics::Unit::Seconds) && description.is_some(), "it is described");
        let DebugValue::Gauge(age) = value else { panic!("{value:?}") };
        let labels: Vec<_> = key.labels().map(|label| (label.key(), label.value())).collect();
        let [("pid", pid)] = labels[..] else { panic!("{labels:?}") };
        ages.push((pid.to_owned(), age.into_inner()));
    }
    ages.sort_by(|(a, _), (b, _)| a.cmp(b));
    ages
}

/// A recorder of metrics counts on this thread as long as the test runs.
#[tokio::test]
async fn the_age_of_an_open_append_is_a_metric() {
    const PATIENCE: Duration = Duration::from_millis(100);
    let recorder = DebuggingRecorder::new();
    let snapshotter = recorder.snapshotter();
    let _recording = metrics::set_default_local_recorder(&recorder);
    let database = TestDatabase::create().await;
    let options = EventStore::options().held_back_warning(PATIENCE);
    let store = database.store_with(options).await;
    store.append(one(stream("a"), 1)).await.unwrap();
    store.safe_position().await.unwrap();
    assert_eq!(ages(&snapshotter), []);

    let mut expected = Vec::new();
    for name in ["first", "second"] {
        let client = database.client_as(name).await;
        client.batch_execute("begin").await.unwrap();
        direct::append(&client, name, &direct::ids(1)).await.unwrap();
        let pid: i32 = client.query_one("select pg_backend_pid()", &[]).await.unwrap().get(0);
        expected.push((pid.to_string(), client));
    }
    let (second, first) = (expected.pop().unwrap(), expected.pop().unwrap());
    let age_of = |pid: &str| ages(&snapshotter).into_iter().find(|(of, _)| of == pid);
    for (held, ended) in [(&first, None), (&second, Some(&first))] {
        eventually("its age is shown", async || {
            store.safe_position().await.unwrap();
            age_of(&held.0).is_some_and(|(_, age)| age >= 0.1)
        })
        .await;
        let (_, before) = age_of(&held.0).unwrap();
        eventually("it grows older", async || {
            store.safe_position().await.unwrap();
            age_of(&held.0).is_some_and(|(_, age)| age > before)
        })
        .await;
        // Only the oldest counts, and what has ended is of no age.
        let others: Vec<_> =
            ages(&snapshotter).into_iter().filter(|(of, _)| *of != held.0).collect();
        let gone: Vec<_> = ended.iter().map(|(pid, _)| (pid.clone(), 0.0)).collect();
        assert_eq!(others, gone);
        // A snapshot takes the value away: once more, so that there is one to be cleared.
        tokio::time::sleep(PATIENCE).await;
        store.safe_position().await.unwrap();
        held.1.batch_execute("commit").await.unwrap();
    }
    store.safe_position().await.unwrap();
    assert!(ages(&snapshotter).iter().all(|(_, age)| *age == 0.0), "{:?}", ages(&snapshotter));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_first_append_of_all_is_waited_for() {
    let database = TestDatabase::create().await;
    let store = database.store().await;
    let mut client = database.client().await;
    let held = client.transaction().await.unwrap();
    assert_eq!(direct::append(&held, "a", &direct::ids(1)).await.unwrap(), 1);
    store.append(one(stream("b"), 2)).await.unwrap();
    assert_eq!(store.safe_position().await.unwrap(), Position::START);
    assert_eq!(seen(&store, Position::START).await, [0; 0]);
    held.commit().await.unwrap();
    assert_eq!(seen(&store, Position::START).await, [1, 2]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_several_open_appends_the_lowest_counts() {
    let database = TestDatabase::create().await;
    let store = database.store().await;
    let mut clients = Vec::new();
    for key in ["a", "b", "c"] {
        let client = database.client().await;
        client.batch_execute("begin").await.unwrap();
        direct::append(&client, key, &direct::ids(2)).await.unwrap();
        clients.push(client);
    }
    let (first, second, third) = (&clients[0], &clients[1], &clients[2]);
    second.batch_execute("commit").await.unwrap();
    assert_eq!(seen(&store, Position::START).await, [0; 0]);
    first.batch_execute("rollback").await.unwrap();
    assert_eq!(seen(&store, Position::START).await, [3, 4]);
    assert_eq!(store.safe_position().await.unwrap(), Position::new(4));
    third.batch_execute("commit").await.unwrap();
    assert_eq!(seen(&store, Position::new(4)).await, [5, 6]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn unrelated_transactions_delay_no_reader() {
    let database = TestDatabase::create().await;
    let elsewhere = TestDatabase::create().await;
    let store = database.store().await;
    let unrelated = [database.client().await, elsewhere.client().await];
    for client in &unrelated {
        // A transaction that has written, and holds locks of its own that look like ours.
        client
            .batch_execute(
                "create table t (id integer); begin; insert into t values (1);
                 select pg_advisory_xact_lock_shared(1), pg_advisory_xact_lock(1, 1)",
            )
            .await
            .unwrap();
    }
    let repeatable = database.client().await;
    repeatable
        .batch_execute("begin isolation level repeatable read; select count(*) from annals.events")
        .await
        .unwrap();
    for number in 1..=3 {
        let position = store.append(one(stream("a"), number)).await.unwrap().last_position;
        assert_eq!(store.safe_position().await.unwrap(), position);
    }
    assert_eq!(seen(&store, Position::START).await, [1, 2, 3]);
    // The same registration in another database of the server is none here.
    let id: i32 =
        database.client().await.query_one("select id from annals.store", &[]).await.unwrap().get(0);
    let registered = format!("select pg_advisory_xact_lock_shared({}::bigint << 48)", id);
    unrelated[1].batch_execute(&registered).await.unwrap();
    assert_eq!(seen(&store, Position::START).await, [1, 2, 3]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rolled_back_append_leaves_a_hole_that_is_passed_at_once() {
    let database = TestDatabase::create().await;
    let store = database.store().await;
    let mut client = database.client().await;
    store.append(one(stream("a"), 1)).await.unwrap();
    let lost = client.transaction().await.unwrap();
    direct::append(&lost, "a", &direct::ids(3)).await.unwrap();
    lost.rollback().await.unwrap();
    assert_eq!(store.safe_position().await.unwrap(), Position::new(4), "a dead gap is passed");
    let next = store.append(one(stream("a"), 2)).await.unwrap();
    assert_eq!(next.versions, [(stream("a"), annals_eventstore::Version::new(2))]);
    assert_eq!(seen(&store, Position::START).await, [1, 5]);
    assert_eq!(numbers(&log(&store).await), [1, 2]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_savepoint_rolled_back_gives_its_registration_back() {
    let database = TestDatabase::create().await;
    let store = database.store().await;
    let client = database.client().await;
    store.append(one(stream("a"), 1)).await.unwrap();
    client.batch_execute("begin; savepoint s").await.unwrap();
    direct::append(&client, "b", &direct::ids(2)).await.unwrap();
    assert_eq!(store.safe_position().await.unwrap(), Position::new(1));
    client.batch_execute("rollback to savepoint s").await.unwrap();
    assert_eq!(store.safe_position().await.unwrap(), Position::new(3));
    // It appends anew, with higher positions.
    assert_eq!(direct::append(&client, "b", &direct::ids(1)).await.unwrap(), 4);
    assert_eq!(store.safe_position().await.unwrap(), Position::new(3));
    client.batch_execute("savepoint s").await.unwrap();
    direct::append(&client, "b", &direct::ids(1)).await.unwrap();
    client.batch_execute("release savepoint s").await.unwrap();
    assert_eq!(store.safe_position().await.unwrap(), Position::new(3));
    client.batch_execute("commit").await.unwrap();
    assert_eq!(seen(&store, Position::START).await, [1, 4, 5]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_backend_leaves_no_registration() {
    let database = TestDatabase::create().await;
    let store = database.store().await;
    let watcher = database.client().await;
    store.append(one(stream("a"), 1)).await.unwrap();
    for round in 0..5 {
        let name = format!("victim {round}");
        let victim = database.client_as(&name).await;
        victim.batch_execute("begin").await.unwrap();
        direct::append(&victim, "b", &direct::ids(2)).await.unwrap();
        assert_eq!(direct::registered(&watcher).await, 1);
        assert_eq!(kill(&watcher, &name).await, 1);
        eventually("the registration ends", async || direct::registered(&watcher).await == 0).await;
        assert_eq!(store.safe_position().await.unwrap(), Position::new(1 + 2 * (round + 1)));
    }
    // Nor does it leave a lock on its stream, or on the drawing of positions.
    store.append(one(stream("b"), 2)).await.unwrap();
    assert_eq!(seen(&store, Position::START).await, [1, 12]);
}

/// A reader of one category passes what it does not match, waits for what it could match, and finds
/// all that it does.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reader_of_one_category_loses_nothing_and_waits_for_nothing_else() {
    let database = TestDatabase::create().await;
    let store = database.store().await;
    let wanted = ["wanted".to_owned()];
    let to = |category: &str, number| one(StreamId::new(category, "a").unwrap(), number);
    let mut checkpoint = Position::START;
    let mut found = Vec::new();
    for round in 0..10 {
        let client = database.client().await;
        client.batch_execute("begin").await.unwrap();
        let category = if round % 2 == 0 { "wanted" } else { "thing" };
        direct::append_to(&client, category, &format!("held {round}"), &direct::ids(1))
            .await
            .unwrap();
        store.append(to("thing", round)).await.unwrap();
        store.append(to("wanted", round)).await.unwrap();
        for step in ["", "commit"] {
            client.batch_execute(step).await.unwrap();
            let safe = store.safe_position().await.unwrap();
            let page = store.read_page(Some(&wanted), checkpoint, safe, 100).await.unwrap();
            assert!(safe >= checkpoint);
            assert!(page.iter().all(|event| event.stream.category() == "wanted"));
            found.extend(page.iter().map(|event| event.position));
            checkpoint = safe;
        }
    }
    let log = log(&store).await;
    let expected = log.iter().filter(|event| event.stream.category() == "wanted");
    assert!(expected.map(|event| event.position).eq(found));
    assert_eq!(checkpoint, log.last().unwrap().position);
    assert_eq!(log.iter().filter(|event| number(event) == 0).count(), 2 + 10);
}
