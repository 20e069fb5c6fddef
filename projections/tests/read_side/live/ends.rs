//! How live read models end, and who is told.

use std::time::Duration;

use annals_eventstore::{Append, EventStore, NewEvent, Payload, Position, Recorded, StreamId};
use annals_projections::{Change, Live, Project, ProjectionError, ReadModel};
use futures::{StreamExt, TryStreamExt};

use super::{ANY, assert_folded, options};
use crate::support::{
    PATIENCE,
    database::{TestDatabase, kill_after, value},
    eventually,
    ledger::{Ledger, LedgerEvent, add, append},
    text,
};

async fn undecodable(store: &EventStore, key: &str) -> Position {
    let event = NewEvent::raw("transfused", 1, Payload::from_json("{}").unwrap());
    let stream = StreamId::new("ledger", key).unwrap();
    store.append(Append::to(stream, ANY, [event])).await.unwrap().last_position
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_that_does_not_decode_stops_it_and_everybody_hears_of_it() {
    let database = TestDatabase::create().await;
    for store in [EventStore::in_memory(), database.store().await] {
        add(&store, "a", 1).await;
        let live = options().batch_size(100).start(&store).await.unwrap();
        let mut changes = live.changes().unwrap();
        let last = add(&store, "a", 2).await.last_position;
        let unknown = undecodable(&store, "b").await;
        add(&store, "a", 4).await;

        let error = live.wait_for(unknown, PATIENCE / 2).await.unwrap_err();
        assert_stopped(&error, unknown);
        assert!(!error.is_retryable());
        // Up to there everything counts.
        live.wait_for(last, PATIENCE).await.unwrap();
        assert_eq!(live.position(), Position::new(unknown.get() - 1));
        assert_folded(&store, [live.last()]).await;
        assert_eq!(live.last().rows[0].total, 3);
        assert_stopped(&live.get(&"a".to_owned()).unwrap_err(), unknown);
        assert_stopped(&live.all().unwrap_err(), unknown);
        assert_stopped(&live.changes().unwrap_err(), unknown);
        assert_stopped(&live.stop().await.unwrap_err(), unknown);
        assert_eq!(changes.try_next().await.unwrap().unwrap().position, last);
        assert_stopped(&changes.next().await.unwrap().unwrap_err(), unknown);
        assert!(changes.next().await.is_none());

        // Who waits for the start is told at once.
        let error = options().start(&store).await.unwrap_err();
        assert!(matches!(error, ProjectionError::Event(_)), "{error:?}");
    }
}

fn assert_stopped(error: &ProjectionError, unknown: Position) {
    let ProjectionError::Stopped { projection: "tallies", position, source: Some(source) } = error
    else {
        panic!("{error:?}")
    };
    assert_eq!(*position, Position::new(unknown.get() - 1));
    let ProjectionError::Event(failure) = &**source else { panic!("{source:?}") };
    assert_eq!((failure.stream.to_string().as_str(), failure.version.get()), ("ledger-b", 1));
    assert_eq!(failure.position, unknown);
    assert!(text(error).contains("transfused"), "{}", text(error));
}

/// A row whose code is wrong: for events that are shared it names another key, and notes it cannot bear.
#[derive(ReadModel, Clone, Debug, PartialEq)]
#[read_model(table = "frail", from(Ledger))]
struct Frail {
    #[read_model(key)]
    ledger: String,
}

impl Project<LedgerEvent> for Frail {
    fn project(_: Option<Self>, event: &Recorded<LedgerEvent>) -> Change<Self> {
        let ledger = match &event.event {
            LedgerEvent::Shared { ledgers, .. } => ledgers[0].clone(),
            LedgerEvent::Noted => panic!("this panic belongs to the test"),
            _ => event.stream.key().to_owned(),
        };
        Change::Set(Self { ledger })
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_row_under_another_key_ends_it_and_leaves_out_its_batch() {
    let store = EventStore::in_memory();
    add(&store, "a", 1).await;
    let live = Live::<Frail>::start(&store).await.unwrap();
    let strayed = LedgerEvent::Shared { ledgers: vec!["elsewhere".into()], amount: 0 };
    let both = [LedgerEvent::Added { amount: 1 }, strayed];
    let strayed = append::<Ledger>(&store, "b", both).await.last_position;
    let error = live.wait_for(strayed, PATIENCE / 2).await.unwrap_err();
    let ProjectionError::Stopped { source: Some(source), .. } = error else { panic!("{error:?}") };
    let ProjectionError::Event(failure) = &*source else { panic!("{source:?}") };
    assert_eq!(failure.position, strayed);
    assert!(failure.source.to_string().contains("another key"), "{}", failure.source);
    assert_eq!((live.position(), live.last().rows.len()), (Position::new(1), 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_panic_in_a_projection_leaves_nobody_waiting() {
    let store = EventStore::in_memory();
    let live = Live::<Frail>::start(&store).await.unwrap();
    let mut changes = live.changes().unwrap();
    let noted = append::<Ledger>(&store, "a", [LedgerEvent::Noted]).await.last_position;
    let stopped = |error: ProjectionError| text(&error).contains("this panic belongs to the test");
    assert!(stopped(live.wait_for(noted, PATIENCE / 2).await.unwrap_err()));
    assert!(stopped(live.all().unwrap_err()) && stopped(live.stop().await.unwrap_err()));
    assert!(stopped(changes.next().await.unwrap().unwrap_err()));
    assert!(changes.next().await.is_none() && live.last().rows.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn stopping_is_no_failure_and_the_last_rows_stay() {
    let store = EventStore::in_memory();
    add(&store, "a", 1).await;
    let live = options().start(&store).await.unwrap();
    let (clone, mut changes) = (live.clone(), live.changes().unwrap());
    live.stop().await.unwrap();
    live.stop().await.unwrap();
    assert!(changes.next().await.is_none());
    let more = add(&store, "a", 2).await.last_position;
    let error = clone.wait_for(more, PATIENCE).await.unwrap_err();
    assert!(matches!(error, ProjectionError::Stopped { source: None, .. }), "{error:?}");
    assert!(clone.get(&"a".to_owned()).is_err());
    assert_eq!((clone.last().rows[0].total, clone.position()), (1, Position::new(1)));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_last_clone_that_is_dropped_ends_it_and_its_hold_on_the_store() {
    let database = TestDatabase::create().await;
    let (client, store) = (database.client().await, database.store_as("victim").await);
    let live = options().start(&store).await.unwrap();
    let mut changes = live.changes().unwrap();
    drop(store);
    drop(live.clone());
    let here = "select count(*) from pg_stat_activity
                where application_name = 'victim' and datname = current_database()";
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert!(value::<i64>(&client, here).await > 0, "a clone ended it");
    drop(live);
    eventually("no connection", || async { value::<i64>(&client, here).await == 0 }).await;
    assert!(changes.next().await.is_none());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_is_closed_ends_it_with_the_reason() {
    let database = TestDatabase::create().await;
    for store in [EventStore::in_memory(), database.store().await] {
        let live = options().start(&store).await.unwrap();
        store.close().await;
        let error = live.wait_for(Position::new(1), PATIENCE / 2).await.unwrap_err();
        assert!(text(&error).contains("shut down"), "{}", text(&error));
    }
}

/// After a failover, another server may answer that lacks what was folded.
#[tokio::test(flavor = "multi_thread")]
async fn an_event_that_the_log_no_longer_has_ends_it() {
    let database = TestDatabase::create().await;
    let (store, client) = (database.store().await, database.client().await);
    let reader = database.store_as("victim").await;
    add(&store, "a", 1).await;
    let live = options().start(&reader).await.unwrap();
    let lost = add(&store, "a", 2).await.last_position;
    live.wait_for(lost, PATIENCE / 2).await.unwrap();

    // A lost connection alone is nothing.
    eventually("a listener", || async { kill_after(&client, "victim", "listen%").await > 0 }).await;
    let more = add(&store, "b", 4).await.last_position;
    live.wait_for(more, PATIENCE / 2).await.unwrap();

    let lose = format!(
        "alter table annals.events disable trigger all;
         delete from annals.events where position = {more}"
    );
    client.batch_execute(&lose).await.unwrap();
    eventually("a listener", || async { kill_after(&client, "victim", "listen%").await > 0 }).await;
    let error = live.wait_for(more.plus(1), PATIENCE / 2).await.unwrap_err();
    let ProjectionError::Stopped { source: Some(source), .. } = error else { panic!("{error:?}") };
    let ProjectionError::EventLost { position, .. } = &*source else { panic!("{source:?}") };
    assert_eq!(*position, more);
}
