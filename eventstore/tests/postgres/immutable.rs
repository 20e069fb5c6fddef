//! What is recorded stays as it is, whoever asks.

use crate::support::{TestDatabase, event, log, one, stream};
use annals_eventstore::{Append, ExpectedVersion};

#[tokio::test]
async fn events_cannot_be_changed_or_removed() {
    let database = TestDatabase::create().await;
    let store = database.store().await;
    store
        .append(Append::to(stream("a"), ExpectedVersion::Any, [event(1), event(2)]))
        .await
        .unwrap();
    let before = log(&store).await;
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
    assert_eq!(log(&store).await, before);
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
