//! Snapshots as they are stored: when they are written, used and replaced.

use std::time::Duration;

use annals_eventstore::{
    Aggregate, Append, Apply, AsOf, EventStore, ExpectedVersion, NewEvent, Position, StreamId,
    Version, postgres::Use,
};
use serde::{Deserialize, Serialize};
use tokio_postgres::Client;

use crate::support::{
    TestDatabase,
    counter::{CounterEvent, counter},
    database::value,
    eventually, in_time,
    snapshots::{ByHand, Count, EveryOne, EveryThree, KeepTwo, earlier},
    warnings::Warnings,
};

async fn append(store: &EventStore, numbers: impl IntoIterator<Item = i64>) -> Position {
    let event = |by| NewEvent::of(&CounterEvent::Changed { by }).unwrap();
    let events: Vec<_> = numbers.into_iter().map(event).collect();
    let append = Append::to(counter("a"), ExpectedVersion::Any, events);
    store.append(append).await.unwrap().last_position
}

/// The versions of the snapshots that are kept under a name.
async fn kept(client: &Client, name: &str) -> Vec<i64> {
    let sql = "select version from annals.snapshots where name = $1 order by version";
    client.query(sql, &[&name]).await.unwrap().iter().map(|row| row.get(0)).collect()
}

async fn wait_for(client: &Client, name: &str, versions: &[i64]) {
    eventually(&format!("{name} has snapshots {versions:?}"), || async {
        kept(client, name).await == versions
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn commands_leave_a_snapshot_every_so_many_events_and_keep_the_latest() {
    let database = TestDatabase::create().await;
    let (store, client) = (database.store().await, database.client().await);
    for (number, versions) in
        [(1, &[][..]), (2, &[2]), (3, &[2]), (4, &[2, 4]), (5, &[2, 4]), (6, &[4, 6])]
    {
        store.execute(Count("a".into(), number)).await.unwrap();
        wait_for(&client, "KeepTwo", versions).await;
    }
    let cold = database.store().await;
    assert_eq!(cold.load::<KeepTwo>("a").await.unwrap().unwrap().state.last, [1, 2, 3, 4, 5, 6]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn units_of_work_leave_the_snapshots_that_are_due() {
    let database = TestDatabase::create().await;
    let (store, client) = (database.store().await, database.client().await);
    for (number, versions) in
        [(1, &[][..]), (2, &[2]), (3, &[2]), (4, &[2, 4]), (5, &[2, 4]), (6, &[4, 6])]
    {
        let mut undone = store.begin().await.unwrap();
        undone.execute(Count("a".into(), number)).await.unwrap();
        undone.rollback().await.unwrap();
        let mut unit = store.begin().await.unwrap();
        unit.execute(Count("a".into(), number)).await.unwrap();
        unit.commit().await.unwrap();
        wait_for(&client, "KeepTwo", versions).await;
    }
    let now = store.load::<KeepTwo>("a").await.unwrap().unwrap();
    assert_eq!(now.state.last, [1, 2, 3, 4, 5, 6]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn loads_leave_a_snapshot_where_none_was() {
    let database = TestDatabase::create().await;
    let (store, client) = (database.store().await, database.client().await);
    append(&store, 1..=7).await;
    store.load::<EveryThree>("a").await.unwrap();
    wait_for(&client, "EveryThree", &[7]).await;
    append(&store, 8..=9).await;
    store.load::<EveryThree>("a").await.unwrap();
    append(&store, 10..=10).await;
    store.load::<EveryThree>("a").await.unwrap();
    wait_for(&client, "EveryThree", &[7, 10]).await;
}

/// Folding takes its time.
#[derive(Aggregate, Serialize, Deserialize, Default, Clone)]
#[aggregate(category = "counter", event = CounterEvent)]
#[snapshot(after_ms = 10)]
struct Slow {
    events: i64,
}

impl Apply<CounterEvent> for Slow {
    fn apply(&mut self, _: &CounterEvent) {
        self.events += 1;
        std::thread::sleep(Duration::from_millis(6));
    }
}

/// The same for one who is patient.
#[derive(Aggregate, Serialize, Deserialize, Default, Clone)]
#[aggregate(category = "counter", event = CounterEvent)]
#[snapshot(after_ms = 600_000)]
struct Patient(Slow);

impl Apply<CounterEvent> for Patient {
    fn apply(&mut self, event: &CounterEvent) {
        self.0.apply(event);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn loads_that_take_long_leave_a_snapshot() {
    let database = TestDatabase::create().await;
    let (store, client) = (database.store().await, database.client().await);
    append(&store, 1..=3).await;
    assert_eq!(store.load::<Patient>("a").await.unwrap().unwrap().state.0.events, 3);
    store.load::<Slow>("a").await.unwrap();
    wait_for(&client, "Slow", &[3]).await;
    append(&store, 4..=6).await;
    let cold = database.store().await;
    assert_eq!(cold.load::<Slow>("a").await.unwrap().unwrap().state.events, 6);
    wait_for(&client, "Slow", &[3, 6]).await;
    assert_eq!(kept(&client, "Patient").await, [0; 0]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn loads_start_from_the_nearest_snapshot_below() {
    let database = TestDatabase::create().await;
    let (store, client) = (database.store().await, database.client().await);
    let mut positions = Vec::new();
    for number in 1..=9 {
        positions.push(append(&store, [number]).await);
        if number % 3 == 0 {
            store.snapshot::<ByHand>("a").await.unwrap();
        }
    }
    // A state that no fold leads to shows where the load began.
    client
        .batch_execute(r#"update annals.snapshots set state = '{"total":1000,"last":[]}'"#)
        .await
        .unwrap();
    for (version, position) in (1..).zip(positions) {
        let after_snapshot = (version % 3) as usize;
        for moment in [AsOf::Version(Version::new(version)), AsOf::Position(position)] {
            let then = store.load_as_of::<ByHand>("a", moment).await.unwrap().unwrap();
            assert_eq!(then.version.get(), version);
            assert_eq!(then.state.total >= 1000, version >= 3, "{then:?}");
            assert_eq!(then.state.last.len(), after_snapshot, "{then:?}");
        }
    }
    // So do units of work.
    let mut unit = store.begin().await.unwrap();
    let seen = unit.load::<ByHand>("a").await.unwrap().expect("it has events");
    assert_eq!((seen.state.total, seen.state.last.len()), (1000, 0));
    unit.rollback().await.unwrap();
}

#[tokio::test]
async fn a_snapshot_that_cannot_be_read_is_passed_over_with_a_warning_and_replaced() {
    let database = TestDatabase::create().await;
    let warnings = Warnings::capture();
    let (store, client) = (database.store().await, database.client().await);
    append(&store, 1..=4).await;
    for (number, damage) in (1..).zip([r#"{"total":"much"}"#, "[]", r#"{"total":4}"#]) {
        store.snapshot::<EveryOne>("a").await.unwrap();
        let sql = "update annals.snapshots set state = $1::text::json";
        assert_eq!(client.execute(sql, &[&damage]).await.unwrap(), 1);
        let cold = database.store().await;
        let loaded = cold.load::<EveryOne>("a").await.unwrap().unwrap();
        assert_eq!(loaded.state.last, [1, 2, 3, 4]);
        let warned = warnings.text();
        assert_eq!(warned.lines().count(), number, "{warned}");
        assert!(warned.contains("stream=counter-a version=4"), "{warned}");
        eventually("the snapshot is replaced", || async {
            let sql = "select state::text from annals.snapshots";
            client.query_one(sql, &[]).await.unwrap().get::<_, &str>(0) != damage
        })
        .await;
    }
}

/// Snapshots that are late, or do not come to be, are nobody's affair but the operator's.
#[tokio::test]
async fn a_command_does_not_wait_for_its_snapshot_nor_fail_with_it() {
    let database = TestDatabase::create().await;
    let warnings = Warnings::capture();
    let (store, client) = (database.store().await, database.client().await);
    client.batch_execute("begin; lock table annals.snapshots in share mode").await.unwrap();
    for number in 1..=2 {
        in_time(store.execute(Count("a".into(), number))).await.unwrap();
    }
    assert_eq!(kept(&client, "KeepTwo").await, [0; 0]);
    client.batch_execute("rollback").await.unwrap();
    wait_for(&client, "KeepTwo", &[2]).await;
    assert_eq!(warnings.text(), "");

    let full = "alter table annals.snapshots add constraint no_room check (version < 3) not valid";
    client.batch_execute(full).await.unwrap();
    for number in 3..=4 {
        store.execute(Count("a".into(), number)).await.unwrap();
    }
    eventually("there is a warning", async || warnings.text().contains("stream=counter-a")).await;
    assert_eq!(kept(&client, "KeepTwo").await, [2]);
    let cold = database.store().await;
    assert_eq!(cold.load::<KeepTwo>("a").await.unwrap().unwrap().state.last, [1, 2, 3, 4]);
}

/// Where many are due and the database is behind with them, some are put off.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn snapshots_that_are_late_hold_up_no_load_and_are_so_many_at_most() {
    let database = TestDatabase::create().await;
    let store = database.store_with(EventStore::options().connections(Use::Read, 4)).await;
    let client = database.client().await;
    let keys = 0..100;
    for key in keys.clone() {
        let event = NewEvent::of(&CounterEvent::Changed { by: 1 }).unwrap();
        store.append(Append::to(counter(key), ExpectedVersion::Any, [event])).await.unwrap();
    }
    let load_all = async || {
        for key in keys.clone() {
            let loaded = store.load::<EveryOne>(key).await.unwrap().unwrap();
            assert_eq!(loaded.state.last, [1]);
        }
    };
    let count = async || value::<i64>(&client, "select count(*) from annals.snapshots").await;
    client.batch_execute("begin; lock table annals.snapshots in share mode").await.unwrap();
    in_time(load_all()).await;
    client.batch_execute("rollback").await.unwrap();
    eventually("those on their way are kept", async || count().await == 64).await;
    eventually("the others come with the next loads", async || {
        load_all().await;
        count().await == 100
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_snapshot_of_another_shape_is_replaced() {
    let database = TestDatabase::create().await;
    let (store, client) = (database.store().await, database.client().await);
    append(&store, 1..=2).await;
    store.snapshot::<earlier::EveryOne>("a").await.unwrap();
    append(&store, 3..=3).await;
    store.snapshot::<earlier::EveryOne>("a").await.unwrap();
    assert_eq!(kept(&client, "EveryOne").await, [2, 3]);
    // Those of another aggregate of the category stay.
    store.snapshot::<ByHand>("a").await.unwrap();
    store.snapshot::<EveryOne>("a").await.unwrap();
    assert_eq!(
        (kept(&client, "EveryOne").await, kept(&client, "ByHand").await),
        (vec![3], vec![3])
    );
    let cold = database.store().await;
    assert_eq!(cold.load::<EveryOne>("a").await.unwrap().unwrap().state.last, [1, 2, 3]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_of_several_parts_is_loaded_whole() {
    let database = TestDatabase::create().await;
    let store = database.store().await;
    // Of several parts, and past what sixteen bits can count.
    append(&store, 1..=70_000).await;
    let cold = database.store().await;
    let loaded = cold.load::<EveryThree>("a").await.unwrap().unwrap();
    assert_eq!(loaded.version, Version::new(70_000));
    assert!(loaded.state.last.iter().copied().eq(1..=70_000));
    let stream = StreamId::new("counter", "a").unwrap();
    assert_eq!(stream, counter("a"));
}
