//! Events that fail in a rebuild.

use annals_eventstore::{
    Append, EventStore, ExpectedVersion, NewEvent, Payload, Recorded, StreamId,
};
use annals_projections::{
    Change, KeyError, Keys, Project, ProjectionError, QueryReadModels, ReadModel, control,
};
use std::sync::atomic::{AtomicBool, Ordering};

use super::rebuild;
use crate::support::{
    Running, catch_up,
    database::{TestDatabase, value},
    eventually,
    ledger::{Ledger, LedgerEvent, add},
    worker,
};

/// Whether the code below is mended.
static MENDED: AtomicBool = AtomicBool::new(false);

/// Fails on amounts below zero: -1 panics, -2 leads to another row, -3 has no key, -4 is text that the database
/// refuses, -5 breaks a constraint.
#[derive(ReadModel, Clone, Debug, PartialEq)]
#[read_model(table = "frail", from(Ledger), history)]
struct Frail {
    #[read_model(key)]
    ledger: String,
    events: i64,
    note: String,
}

impl Project<LedgerEvent> for Frail {
    fn keys(event: &Recorded<LedgerEvent>) -> Result<Keys<String>, KeyError> {
        let key = event.stream.key().to_owned();
        match event.event {
            LedgerEvent::Added { amount: -3 } if !MENDED.load(Ordering::Relaxed) => {
                Err(KeyError { key, reason: "it has none".to_owned() })
            }
            _ => Ok(Keys::one(key)),
        }
    }

    fn project(row: Option<Self>, event: &Recorded<LedgerEvent>) -> Change<Self> {
        let LedgerEvent::Added { amount } = event.event else { return Change::Keep };
        let ledger = event.stream.key().to_owned();
        let row = row.unwrap_or(Self { ledger, events: 0, note: String::new() });
        let mut row = Self { events: row.events + 1, ..row };
        if !MENDED.load(Ordering::Relaxed) {
            match amount {
                -1 => panic!("on purpose"),
                -2 => row.ledger = "elsewhere".to_owned(),
                -4 => row.note = "\0".to_owned(),
                _ => {}
            }
        }
        Change::Set(row)
    }
}

async fn undecodable(store: &EventStore, key: &str) {
    let event = NewEvent::raw("added", 1, Payload::from_json(r#"{"amount":"x"}"#).unwrap());
    let stream = StreamId::new("ledger", key).unwrap();
    store.append(Append::to(stream, ExpectedVersion::Any, [event])).await.unwrap();
}

async fn events(store: &EventStore) -> Vec<(String, i64)> {
    let rows = store.query::<Frail>().all().await.unwrap();
    rows.into_iter().map(|row| (row.ledger, row.events)).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn they_are_parked_as_a_worker_parks_them_and_can_be_tried_again() {
    let database = TestDatabase::create().await;
    let (store, client) = (database.store().await, database.client().await);
    let amounts = [("p", -1), ("w", -2), ("k", -3), ("n", -4)];
    for round in 0..40 {
        add(&store, "good", 1).await;
        for (key, _) in amounts {
            add(&store, key, 1).await;
        }
        if round == 20 {
            for (key, amount) in amounts {
                add(&store, key, amount).await;
            }
            undecodable(&store, "u").await;
        }
        add(&store, "u", 1).await;
    }
    // Nothing comes behind it, so the history does not have it: the database refuses the row.
    add(&store, "z", 1).await;
    add(&store, "z", -4).await;
    catch_up::<Frail>(&store).await;
    let parked = "select string_agg(format('%s %s %s', key, position, version), ', ' order by key)
        from annals.parked_streams where projection = 'projection:frail'";
    let rows = events(&store).await;
    let by_worker: String = value(&client, parked).await;
    assert_eq!(by_worker.matches(", ").count(), 5, "{by_worker}");

    let few = rebuild::<Frail>(&store).max_parked(5).build().await;
    assert!(matches!(few, Err(ProjectionError::Event(_))), "{few:?}");
    rebuild::<Frail>(&store).discard().await.unwrap();
    for (shards, in_memory) in [(1, 10_000), (3, 7)] {
        let rebuild = rebuild::<Frail>(&store).shards(shards).rows_in_memory(in_memory);
        let built = rebuild.max_parked(6).run().await.unwrap();
        assert_eq!(built.parked, 6);
        assert_eq!(value::<String>(&client, parked).await, by_worker);
        assert_eq!(events(&store).await, rows);
    }
    // Those of the other tables come back with them.
    rebuild::<Frail>(&store).rollback().await.unwrap();
    assert_eq!(value::<String>(&client, parked).await, by_worker);
    let kept = "select count(*) from annals.parked_streams where projection <> 'projection:frail'";
    assert_eq!(value::<i64>(&client, kept).await, 6);

    MENDED.store(true, Ordering::Relaxed);
    let running = Running::start(worker::<Frail>(&store));
    control::retry(&store, "frail", None).await.unwrap();
    let retried = || async { control::parked(&store, Some("frail")).await.unwrap().len() == 1 };
    eventually("all but one succeed", retried).await;
    running.stop().await;
    let expected = [("good", 40), ("k", 41), ("n", 41), ("p", 41), ("u", 20), ("w", 41), ("z", 2)];
    assert_eq!(events(&store).await, expected.map(|(key, count)| (key.to_owned(), count)));
    rebuild::<Frail>(&store).discard().await.unwrap();
    let kept = "select count(*) from annals.parked_streams where projection <> 'projection:frail'";
    assert_eq!(value::<i64>(&client, kept).await, 0);
}
