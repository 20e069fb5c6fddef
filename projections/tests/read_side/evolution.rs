//! Read models of events that were stored in other shapes, and as other events.

use std::sync::{Arc, Mutex};

use annals_eventstore::{
    Aggregate, Append, Apply, AsOf, Error, Event, EventStore, ExpectedVersion, NewEvent, Payload,
    Recorded, StreamId,
};
use annals_projections::{
    Cause, Change, Consistency, Effect, InlineProjections, KeyError, Keys, Live, Project,
    QueryReadModels, React, Reaction, Reactor, ReactorSource, ReadModel, Rebuild, Start, Worker,
    control, testkit::Projected,
};
use serde::{Deserialize, Serialize};

use crate::support::{
    PATIENCE, Running, catch_up, database::TestDatabase, eventually, oracle::assert_exact,
    stopping, text, worker,
};

#[derive(Event, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[event(dropped("viewed"), split("moved", Moved))]
enum StockEvent {
    #[event(version = 2, upcast_from = ArrivedV1, alias = "delivered")]
    Arrived {
        item: String,
        #[serde(alias = "number")]
        count: i64,
    },
    Left {
        item: String,
        count: i64,
    },
    SoldOut {
        item: String,
    },
}

#[derive(Deserialize)]
struct ArrivedV1(String);

#[derive(Deserialize)]
struct Moved {
    from: String,
    to: Vec<String>,
}

impl From<ArrivedV1> for StockEvent {
    fn from(ArrivedV1(item): ArrivedV1) -> Self {
        Self::Arrived { item, count: 1 }
    }
}

impl From<Moved> for Vec<StockEvent> {
    fn from(Moved { from, to }: Moved) -> Self {
        let count = to.len() as i64;
        let arrived = |item| StockEvent::Arrived { item, count: 1 };
        let left = (count > 0).then_some(StockEvent::Left { item: from, count });
        left.into_iter().chain(to.into_iter().map(arrived)).collect()
    }
}

#[derive(Aggregate, Default)]
#[aggregate(category = "stock", event = StockEvent)]
struct Stock;

impl Apply<StockEvent> for Stock {
    fn apply(&mut self, _: &StockEvent) {}
}

/// How many there are of an item; nothing of one that is sold out.
#[derive(ReadModel, Clone, Debug, PartialEq)]
#[read_model(table = "items", from(Stock), history)]
struct Item {
    #[read_model(key)]
    item: String,
    count: i64,
    changes: i64,
}

impl Item {
    fn new(item: &str, count: i64, changes: i64) -> Self {
        Self { item: item.to_owned(), count, changes }
    }
}

impl Project<StockEvent> for Item {
    fn keys(event: &Recorded<StockEvent>) -> Result<Keys<String>, KeyError> {
        let (StockEvent::Arrived { item, .. }
        | StockEvent::Left { item, .. }
        | StockEvent::SoldOut { item }) = &event.event;
        Ok(Keys::one(item.clone()))
    }

    fn project(row: Option<Self>, event: &Recorded<StockEvent>) -> Change<Self> {
        let (item, by) = match &event.event {
            StockEvent::Arrived { item, count } => (item, *count),
            StockEvent::Left { item, count } => (item, -count),
            StockEvent::SoldOut { .. } => return Change::Delete,
        };
        let row = row.unwrap_or_else(|| Self::new(item, 0, 0));
        Change::Set(Self { count: row.count + by, changes: row.changes + 1, ..row })
    }
}

async fn store_once(store: &EventStore, kind: &str, version: u32, json: &'static str) -> i64 {
    let event = NewEvent::raw(kind, version, Payload::from_json(json).unwrap());
    let stream = StreamId::new("stock", "all").unwrap();
    let append = Append::to(stream, ExpectedVersion::Any, [event]);
    store.append(append).await.unwrap().last_position.get()
}

const LOG: [(&str, u32, &str); 10] = [
    ("arrived", 1, r#""nail""#),
    ("arrived", 2, r#"{"item":"nail","count":9}"#),
    ("delivered", 2, r#"{"item":"screw","number":5}"#),
    ("viewed", 3, "[]"),
    // Two parts of it concern the same row, which the first of them changed before.
    ("moved", 1, r#"{"from":"nail","to":["nail","screw","bolt"]}"#),
    ("moved", 1, r#"{"from":"nail","to":[]}"#),
    ("moved", 1, r#"{"from":"bolt","to":["nut","nut"]}"#),
    ("sold_out", 1, r#"{"item":"screw"}"#),
    ("moved", 1, r#"{"from":"screw","to":["screw"]}"#),
    ("viewed", 1, "{}"),
];

fn expected() -> [Item; 4] {
    [
        Item::new("bolt", -1, 2),
        Item::new("nail", 8, 4),
        Item::new("nut", 2, 2),
        Item::new("screw", 0, 2),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn old_events_are_projected_as_what_they_became() {
    for batch_size in [1, 2, 3, 1000] {
        let database = TestDatabase::create().await;
        let (store, client) = (database.store().await, database.client().await);
        for (kind, version, json) in LOG {
            store_once(&store, kind, version, json).await;
        }
        let mut running = Running::start(worker::<Item>(&store).batch_size(batch_size));
        running.caught_up::<Item>(&store).await;
        running.stop().await;
        assert_eq!(store.query::<Item>().all().await.unwrap(), expected());
        assert_exact::<Item>(&store, &client).await;
    }
}

/// Also those that another program still appends in the old shape.
#[tokio::test(flavor = "multi_thread")]
async fn old_events_are_projected_inline_as_what_they_became() {
    let database = TestDatabase::create().await;
    let client = database.client().await;
    let store = database.store().await;
    let (before, after) = LOG.split_at(5);
    for (kind, version, json) in before {
        store_once(&store, kind, *version, json).await;
    }
    // What is there is projected when it is registered, what comes by the append itself.
    let store = store.with_inline::<Item>().await.unwrap();
    for (kind, version, json) in after {
        store_once(&store, kind, *version, json).await;
    }
    let query = store.query::<Item>().consistency(Consistency::Strong);
    assert_eq!(query.all().await.unwrap(), expected());
    assert_exact::<Item>(&store, &client).await;
    // One that cannot be decoded is not recorded: the row would lack it.
    let moved = NewEvent::raw("moved", 1, Payload::from_json(r#"{"from":"nail"}"#).unwrap());
    let append = Append::to(StreamId::new("stock", "all").unwrap(), ExpectedVersion::Any, [moved]);
    let refused = store.append(append).await;
    assert!(matches!(refused, Err(Error::Inline { .. })), "{refused:?}");
    assert_eq!(store.query::<Item>().all().await.unwrap(), expected());
}

#[tokio::test(flavor = "multi_thread")]
async fn all_parts_of_an_event_are_seen_together() {
    let database = TestDatabase::create().await;
    let store = database.store().await;
    let mut positions = Vec::new();
    for (kind, version, json) in LOG {
        positions.push(store_once(&store, kind, version, json).await);
    }
    catch_up::<Item>(&store).await;
    let nails = async |position: i64| {
        let as_of = AsOf::Position(annals_eventstore::Position::new(position));
        let row = store.query::<Item>().as_of(as_of).get(&"nail".to_owned()).await.unwrap();
        row.map(|row| (row.count, row.changes))
    };
    assert_eq!(nails(positions[0]).await, Some((1, 1)));
    assert_eq!(nails(positions[3]).await, Some((10, 2)));
    // Three went and one came: never seven.
    assert_eq!(nails(positions[4]).await, Some((8, 4)));
    assert_eq!(nails(positions[9]).await, Some((8, 4)));
}

#[tokio::test(flavor = "multi_thread")]
async fn old_events_are_what_they_became_in_a_rebuild_and_live() {
    let database = TestDatabase::create().await;
    let (store, client) = (database.store().await, database.client().await);
    let (before, after) = LOG.split_at(5);
    for (kind, version, json) in before {
        store_once(&store, kind, *version, json).await;
    }
    let live = Live::<Item>::options().batch_size(3).start(&store).await.unwrap();
    for (kind, version, json) in after {
        store_once(&store, kind, *version, json).await;
    }
    live.wait_for(store.safe_position().await.unwrap(), PATIENCE / 2).await.unwrap();
    let mut rows = live.all().unwrap().rows;
    rows.sort_by(|one, other| one.item.cmp(&other.item));
    assert_eq!(rows, expected());
    live.stop().await.unwrap();

    catch_up::<Item>(&store).await;
    client.batch_execute("update items set count = 77").await.unwrap();
    Rebuild::<Item>::of(&store).run().await.unwrap();
    assert_eq!(store.query::<Item>().all().await.unwrap(), expected());
    assert_exact::<Item>(&store, &client).await;
}

/// Writes down what it is told.
#[derive(Clone, Default)]
struct Witness(Arc<Mutex<Vec<StockEvent>>>);

impl Reactor for Witness {
    fn name(&self) -> &str {
        "witness"
    }

    fn sources() -> Vec<ReactorSource<Self>> {
        vec![ReactorSource::of::<Stock>()]
    }

    fn start(&self) -> Start {
        Start::Beginning
    }
}

impl React<StockEvent> for Witness {
    async fn react(&self, event: &Recorded<StockEvent>, _: &Effect) -> Result<Reaction, Cause> {
        self.0.lock().unwrap().push(event.event.clone());
        Ok(Reaction::Done)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn old_events_are_reacted_to_as_what_they_became() {
    let database = TestDatabase::create().await;
    let store = database.store().await;
    for (kind, version, json) in LOG {
        store_once(&store, kind, version, json).await;
    }
    let witness = Witness::default();
    let running = Running::start(Worker::new(&store).reactor(witness.clone()));
    let end = store.safe_position().await.unwrap();
    eventually("it has reacted to all", || async {
        let status = control::status(&store).await.unwrap();
        status.len() == 1 && status[0].position >= end
    })
    .await;
    running.stop().await;
    let arrived = |item: &str, count| StockEvent::Arrived { item: item.to_owned(), count };
    let left = |item: &str, count| StockEvent::Left { item: item.to_owned(), count };
    let expected = [
        arrived("nail", 1),
        arrived("nail", 9),
        arrived("screw", 5),
        left("nail", 3),
        arrived("nail", 1),
        arrived("screw", 1),
        arrived("bolt", 1),
        left("bolt", 2),
        arrived("nut", 1),
        arrived("nut", 1),
        StockEvent::SoldOut { item: "screw".to_owned() },
        left("screw", 1),
        arrived("screw", 1),
    ];
    assert_eq!(*witness.0.lock().unwrap(), expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_old_event_that_does_not_decode_stops_the_worker() {
    let database = TestDatabase::create().await;
    let store = database.store().await;
    store_once(&store, "viewed", 1, "{}").await;
    store_once(&store, "moved", 1, r#"{"from":"nail"}"#).await;
    let failure = Running::start(stopping::<Item>(&store)).failure().await;
    let message = text(&failure);
    assert!(message.contains("event 2 of stream stock-all, type \"moved\" version 1"), "{message}");
}

#[test]
fn the_test_kit_projects_stored_events() {
    let projected =
        LOG.iter().fold(Projected::<Item>::new(), |projected, (kind, version, json)| {
            projected.stored::<Stock>("all", kind, *version, json)
        });
    for row in expected() {
        projected.then(row.item.clone(), Some(row));
    }
}
