//! Each kind of damage is found and named, and a sound store has none.

mod events;
mod live;
mod schema;
mod snapshots;

use annals_eventstore::{
    EventStore, NewEvent, StreamId,
    verify::{Check, Finding, Verification},
};
use tokio_postgres::Client;

use crate::support::{
    TestDatabase,
    counter::{Counter, CounterEvent},
    one, stream,
};

/// Verifies with the aggregate of the tests.
async fn verify(store: &EventStore) -> Verification {
    store.verify().aggregate::<Counter>().run().await.unwrap()
}

async fn findings(store: &EventStore) -> Vec<Finding> {
    let findings = verify(store).await.findings;
    for finding in &findings {
        // Whatever it is, it says what it is and what to do.
        assert!(finding.to_string().len() > 20, "{finding}");
        assert!(finding.advice().len() > 20, "{finding}");
    }
    findings
}

async fn texts(store: &EventStore) -> Vec<String> {
    findings(store).await.iter().map(ToString::to_string).collect()
}

fn looked_at(verification: &Verification, check: Check) -> u64 {
    verification.checked.iter().find(|checked| checked.check == check).unwrap().looked_at
}

fn changed(by: i64) -> NewEvent {
    NewEvent::of(&CounterEvent::Changed { by }).unwrap()
}

/// A store with the streams `thing-a` to `thing-c`, each of four events, in turn.
async fn store_of_three() -> (TestDatabase, EventStore, Client) {
    let database = TestDatabase::create().await;
    let store = database.store().await;
    for number in 0..4 {
        for key in ["a", "b", "c"] {
            store.append(one(stream(key), number)).await.unwrap();
        }
    }
    let client = database.client().await;
    assert_eq!(findings(&store).await, []);
    (database, store, client)
}

/// The triggers that keep what is stored.
const GUARDS: [(&str, &str); 5] = [
    ("streams", "streams_stay"),
    ("events", "events_are_immutable"),
    ("events", "events_are_kept"),
    ("archived_events", "events_are_immutable"),
    ("archived_events", "events_are_kept"),
];

/// Changes what nobody can change by accident.
async fn damage(client: &Client, sql: &str) {
    let set = |how: &str| {
        let alter = |(table, trigger): &(&str, &str)| {
            format!("alter table annals.{table} {how} trigger {trigger};")
        };
        GUARDS.iter().map(alter).collect::<String>()
    };
    let (off, on) = (set("disable"), set("enable always"));
    let sql = format!("begin; {off} set local search_path = annals; {sql}; {on} commit");
    client.batch_execute(&sql).await.unwrap();
}

/// The condition for an event of a stream.
fn of(stream: &StreamId, version: i64) -> String {
    let (category, key) = (stream.category(), stream.key());
    format!(
        "version = {version} and stream_id = \
         (select id from streams where category = '{category}' and key = '{key}')"
    )
}
