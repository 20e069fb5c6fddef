//! Events that cannot be projected stop a worker that is to stop before them, and nothing is skipped.

use annals_eventstore::{
    Aggregate, Append, Apply, Event, EventStore, ExpectedVersion, NewEvent, Payload, Position,
    Recorded, StreamId,
};
use annals_projections::{Change, KeyError, Keys, Project, ProjectionError, ReadModel};
use serde::{Deserialize, Serialize};
use tokio_postgres::Client;

use crate::support::{
    Running, catch_up,
    database::{TestDatabase, value},
    ledger::{Ledger, LedgerEvent, Tally, add, append},
    oracle::assert_exact,
    stopping, text,
};

/// The same events after a later release: what was unknown is known, under another name.
#[derive(Event, Serialize, Deserialize, Clone, Debug, PartialEq)]
pub(crate) enum LaterEvent {
    Added {
        amount: i64,
    },
    #[event(alias = "transfused")]
    Topped {
        amount: i64,
    },
}

#[derive(Aggregate, Default)]
#[aggregate(category = "ledger", event = LaterEvent)]
pub(crate) struct LaterLedger;

impl Apply<LaterEvent> for LaterLedger {
    fn apply(&mut self, _: &LaterEvent) {}
}

/// The same table.
#[derive(ReadModel, Clone, Debug, PartialEq)]
#[read_model(table = "tallies", from(LaterLedger), history)]
pub(crate) struct LaterTally {
    #[read_model(key)]
    ledger: String,
    pub(crate) total: i64,
    events: i64,
    trail: i64,
    audits: i64,
}

impl Project<LaterEvent> for LaterTally {
    fn project(row: Option<Self>, event: &Recorded<LaterEvent>) -> Change<Self> {
        let row = row.map_or_else(
            || Tally::new(event.stream.key()),
            |row| Tally {
                ledger: row.ledger,
                total: row.total,
                events: row.events,
                trail: row.trail,
                audits: row.audits,
            },
        );
        let Tally { ledger, total, events, trail, audits } = row.at(event);
        let (LaterEvent::Added { amount } | LaterEvent::Topped { amount }) = event.event;
        Change::Set(Self { ledger, total: total + amount, events, trail, audits })
    }
}

/// Appends an event that only the later release knows.
pub(crate) async fn transfuse(store: &EventStore, ledger: &str, amount: i64) -> Position {
    let payload = Payload::from_json(format!(r#"{{"amount":{amount}}}"#)).unwrap();
    let event = NewEvent::raw("transfused", 1, payload);
    let stream = StreamId::new("ledger", ledger).unwrap();
    let append = Append::to(stream, ExpectedVersion::Any, [event]);
    store.append(append).await.unwrap().last_position
}

async fn reached(client: &Client) -> i64 {
    value(client, "select position from annals.checkpoints").await
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_that_does_not_decode_stops_the_worker_until_the_code_knows_it() {
    let database = TestDatabase::create().await;
    let (store, client) = (database.store().await, database.client().await);
    for _ in 0..5 {
        add(&store, "a", 1).await;
    }
    add(&store, "b", 1).await;
    let unknown = transfuse(&store, "b", 70).await;
    for _ in 0..5 {
        add(&store, "a", 1).await;
    }

    // Wherever in its batch it stands, and however often it is tried.
    for batch_size in [1000, 1, 3, 7] {
        let running = Running::start(stopping::<Tally>(&store).batch_size(batch_size));
        let error = running.failure().await;
        assert!(!error.is_retryable());
        match &error {
            ProjectionError::Event(failure) => {
                let stream = failure.stream.to_string();
                assert_eq!((stream.as_str(), failure.version.get()), ("ledger-b", 2));
                assert_eq!((&*failure.projection, failure.position), ("tallies", unknown));
            }
            other => panic!("{other:?}"),
        }
        let text = text(&error);
        for part in ["tallies", "ledger-b", "transfused", "alias", &format!("position {unknown}")] {
            assert!(text.contains(part), "{part} is not in: {text}");
        }
        assert_eq!(reached(&client).await, unknown.get() - 1, "all before it, nothing after it");
        let totals: i64 = value(&client, "select sum(total)::bigint from tallies").await;
        assert_eq!(totals, 6);
    }

    catch_up::<LaterTally>(&store).await;
    assert_exact::<LaterTally>(&store, &client).await;
    let total: i64 = value(&client, "select total from tallies where ledger = 'b'").await;
    assert_eq!(total, 71);
}

/// A read model whose key is a number, which a stream's key need not be.
#[derive(ReadModel, Clone, Debug, PartialEq)]
#[read_model(table = "numbered", from(Ledger))]
struct Numbered {
    #[read_model(key)]
    number: i32,
    events: i64,
}

impl Project<LedgerEvent> for Numbered {
    fn project(row: Option<Self>, event: &Recorded<LedgerEvent>) -> Change<Self> {
        let Ok(number) = event.stream.key().parse() else { return Change::Keep };
        Change::Set(Self { number, events: row.map_or(0, |row| row.events) + 1 })
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_key_that_is_no_row_key_stops_the_worker() {
    let database = TestDatabase::create().await;
    let (store, client) = (database.store().await, database.client().await);
    add(&store, "17", 1).await;
    let bad = add(&store, "seventeen", 1).await.last_position;
    let error = Running::start(stopping::<Numbered>(&store)).failure().await;
    assert!(!error.is_retryable());
    let text = text(&error);
    for part in ["numbered", "ledger-seventeen", "\"seventeen\"", "invalid digit"] {
        assert!(text.contains(part), "{part} is not in: {text}");
    }
    assert_eq!(reached(&client).await, bad.get() - 1);
}

/// Returns a row under another key than it was asked for, when told to.
#[derive(ReadModel, Clone, Debug, PartialEq)]
#[read_model(table = "strays", from(Ledger), history)]
struct Stray {
    #[read_model(key)]
    ledger: String,
    events: i64,
}

impl Project<LedgerEvent> for Stray {
    fn keys(event: &Recorded<LedgerEvent>) -> Result<Keys<String>, KeyError> {
        Ok(Keys::one(event.stream.key().to_owned()))
    }

    fn project(row: Option<Self>, event: &Recorded<LedgerEvent>) -> Change<Self> {
        let ledger = match &event.event {
            LedgerEvent::Shared { ledgers, .. } => ledgers[0].clone(),
            _ => event.stream.key().to_owned(),
        };
        Change::Set(Self { ledger, events: row.map_or(0, |row| row.events) + 1 })
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_row_under_another_key_rolls_back_rows_and_checkpoint() {
    let database = TestDatabase::create().await;
    let (store, client) = (database.store().await, database.client().await);
    add(&store, "a", 1).await;
    catch_up::<Stray>(&store).await;
    let before = reached(&client).await;
    add(&store, "a", 1).await;
    let strayed = LedgerEvent::Shared { ledgers: vec!["elsewhere".into()], amount: 0 };
    let strayed = append::<Ledger>(&store, "b", [strayed]).await.last_position;
    add(&store, "a", 1).await;
    let error = Running::start(stopping::<Stray>(&store)).failure().await;
    match error {
        ProjectionError::Event(failure) => {
            assert_eq!((&*failure.projection, failure.position), ("strays", strayed));
            assert!(failure.source.to_string().contains("another key"), "{}", failure.source);
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(reached(&client).await, strayed.get() - 1, "all before it, nothing behind it");
    assert!(strayed.get() - 1 > before);
    let rows: String = value(&client, "select string_agg(ledger || events, ' ') from strays").await;
    assert_eq!(rows, "a2");
    let versions: i64 = value(&client, "select count(*) from strays_versions()").await;
    assert_eq!(versions, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_database_refuses_rolls_back_and_stops_the_worker() {
    let database = TestDatabase::create().await;
    let (store, client) = (database.store().await, database.client().await);
    add(&store, "a", 1).await;
    catch_up::<Tally>(&store).await;
    let before = reached(&client).await;
    // The last statement of a batch fails: all before it is undone.
    client
        .batch_execute("alter table tallies add constraint small check (total < 100)")
        .await
        .unwrap();
    add(&store, "a", 5).await;
    let refused = add(&store, "b", 100).await.last_position;
    let error = Running::start(stopping::<Tally>(&store)).failure().await;
    match &error {
        ProjectionError::Event(failure) => assert_eq!(failure.position, refused),
        other => panic!("{other:?}"),
    }
    assert!(!error.is_retryable() && text(&error).contains("small"), "{}", text(&error));
    assert_eq!(reached(&client).await, refused.get() - 1, "all before it, nothing behind it");
    assert!(refused.get() - 1 > before);
    let totals: i64 = value(&client, "select sum(total)::bigint from tallies").await;
    assert_eq!(totals, 6);

    client.batch_execute("alter table tallies drop constraint small").await.unwrap();
    catch_up::<Tally>(&store).await;
    assert_exact::<Tally>(&store, &client).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_projection_that_fails_stops_its_worker_and_the_others_stay_whole() {
    let database = TestDatabase::create().await;
    let (store, client) = (database.store().await, database.client().await);
    for n in 0..20 {
        add(&store, &n.to_string(), 1).await;
    }
    add(&store, "no number", 1).await;
    let both = stopping::<Tally>(&store).projection::<Numbered>().batch_size(4);
    let error = Running::start(both).failure().await;
    assert!(text(&error).contains("numbered"), "{}", text(&error));
    catch_up::<Tally>(&store).await;
    assert_exact::<Tally>(&store, &client).await;
}
