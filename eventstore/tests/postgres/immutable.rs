//! What is recorded stays as it is, whoever asks.

use crate::support::{TestDatabase, all, event, is_waiting, log, one, stream};
use annals_eventstore::{Append, EventQuery, ExpectedVersion};

#[tokio::test]
async fn events_cannot_be_changed_or_removed() {
    let database = TestDatabase::create().await;
    let store = database.store().await;
    store
        .append(Append::to(stream("a"), ExpectedVersion::Any, [event(1), event(2)]))
        .await
        .unwrap();
    store.append(one(stream("b"), 3)).await.unwrap();
    store.archive_stream(&stream("b"), ExpectedVersion::Any).await.unwrap();
    let whole = || all(store.read(EventQuery::log().include_archived()));
    let before = whole().await.unwrap();
    assert_eq!(before.len(), 3);
    // The owner of the tables, and a superuser.
    let owner = database.client().await;
    for sql in [
        "update annals.events set payload = '{}'",
        "update annals.events set payload = '{}' where position = 1",
        "update annals.events set payload = '{}' where false",
        "delete from annals.events",
        "delete from annals.events where position = 1",
        "truncate annals.events",
        "truncate annals.events cascade",
        "insert into annals.events select * from annals.events
         on conflict (position) do update set payload = '{}'",
        "merge into annals.events e using annals.events n on e.position = n.position
         when matched then delete",
        "with gone as (delete from annals.events returning *) select * from gone",
        "update annals.archived_events set payload = '{}'",
        "update annals.archived_events set payload = '{}' where false",
        "delete from annals.archived_events",
        "delete from annals.archived_events where position = 3",
        "truncate annals.archived_events",
        "truncate annals.events, annals.archived_events",
        // What is not the same elsewhere is lost.
        "with gone as (delete from annals.events where position = 1 returning *)
         insert into annals.archived_events (position, stream_id, version, event_id, type,
             schema_version, recorded_at, occurred_at, payload, metadata)
         select position, stream_id, version, event_id, type, schema_version, recorded_at,
             occurred_at, '{\"number\": 1}', metadata from gone",
        "with gone as (delete from annals.events where position = 1 returning *)
         insert into annals.archived_events (position, stream_id, version, event_id, type,
             schema_version, recorded_at, occurred_at, payload, metadata)
         select position, stream_id, version, event_id, type, schema_version,
             recorded_at + interval '1 microsecond', occurred_at, payload, metadata from gone",
        "with gone as (delete from annals.events where position <= 2 returning *)
         insert into annals.archived_events select * from gone where position = 2",
        "with gone as (delete from annals.archived_events returning *)
         insert into annals.events (position, stream_id, version, event_id, type,
             schema_version, recorded_at, occurred_at, payload, metadata)
         select position, stream_id, version + 1, event_id, type, schema_version, recorded_at,
             occurred_at, payload, metadata from gone",
        // Without their streams, events could not be read.
        "delete from annals.streams",
        "truncate annals.streams",
    ] {
        for replaying in ["origin", "replica"] {
            let setting = format!("set session_replication_role = {replaying}");
            owner.batch_execute(&setting).await.unwrap();
            let error = owner.batch_execute(sql).await.expect_err(sql);
            let error = error.as_db_error().expect(sql);
            assert_eq!(error.code().code(), "AN010", "{sql}: {error}");
            assert!(error.message().contains("immutable"), "{sql}: {error}");
            assert!(error.hint().is_some(), "{sql} without advice");
        }
    }
    assert_eq!(whole().await.unwrap(), before);
}

/// Two transactions that each take away the copy that the other one counts on.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_event_that_stands_twice_does_not_go_twice() {
    let database = TestDatabase::create().await;
    let store = database.store().await;
    store.append(one(stream("a"), 1)).await.unwrap();
    let (mut here, mut there) = (database.client().await, database.client().await);
    here.batch_execute("insert into annals.archived_events select * from annals.events")
        .await
        .unwrap();
    let (here, there) = (here.transaction().await.unwrap(), there.transaction().await.unwrap());
    here.batch_execute("delete from annals.events").await.unwrap();
    let other = there.batch_execute("delete from annals.archived_events");
    let mut other = std::pin::pin!(other);
    assert!(is_waiting(&mut other).await, "for the copy that stays");
    here.commit().await.unwrap();
    let error = other.await.unwrap_err();
    assert_eq!(error.code().unwrap().code(), "AN010");
    let whole = all(store.read(EventQuery::log().include_archived())).await.unwrap();
    assert_eq!(whole.len(), 1);
}

#[tokio::test]
async fn what_is_recorded_survives_its_store() {
    let database = TestDatabase::create().await;
    let store = database.store().await;
    let first = store.append(one(stream("a"), 1).idempotency_key("key")).await.unwrap();
    let before = log(&store).await;
    drop(store);
    let store = database.store().await;
    assert_eq!(log(&store).await, before);
    let again = store.append(one(stream("a"), 1).idempotency_key("key")).await.unwrap();
    assert!(again.replayed);
    assert_eq!(again.first_position, first.first_position);
    let next = store.append(one(stream("a"), 2)).await.unwrap();
    assert!(next.first_position > first.last_position);
    assert_eq!(next.versions[0].1.get(), 2);
}
