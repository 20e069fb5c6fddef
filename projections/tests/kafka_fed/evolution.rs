//! Events that were published in other shapes, and under other names, than those that their consumers have now.

use annals_eventstore::{
    Aggregate, Append, Apply, AsOf, Event, EventStore, ExpectedVersion, NewEvent, Payload,
    Position, Recorded, StreamId,
};
use annals_projections::{
    Change, KeyError, Keys, Project, QueryReadModels, ReadModel, Worker,
    control::{self, FedBy},
};
use serde::{Deserialize, Serialize};

use crate::{
    relay::Relay,
    support::{
        PATIENCE, Running,
        database::TestDatabase,
        oracle::{assert_exact, fold, log, sorted},
    },
};

/// What the events have become. What is in the topics is what they were.
#[derive(Event, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[event(dropped("viewed"), split("moved", Moved))]
enum StockEvent {
    #[event(version = 3, upcast_from = [ArrivedV1, ArrivedV2], alias = "delivered")]
    Arrived { item: String, count: i64, note: String },
    #[event(alias = "gone")]
    Left { item: String, count: i64 },
}

#[derive(Deserialize)]
struct ArrivedV1(String);

#[derive(Deserialize)]
struct ArrivedV2 {
    item: String,
    number: i64,
}

#[derive(Deserialize)]
struct Moved {
    from: String,
    to: Vec<String>,
}

impl From<ArrivedV1> for ArrivedV2 {
    fn from(ArrivedV1(item): ArrivedV1) -> Self {
        Self { item, number: 1 }
    }
}

impl From<ArrivedV2> for StockEvent {
    fn from(ArrivedV2 { item, number }: ArrivedV2) -> Self {
        Self::Arrived { item, count: number, note: "old".to_owned() }
    }
}

impl From<Moved> for Vec<StockEvent> {
    fn from(Moved { from, to }: Moved) -> Self {
        let left = StockEvent::Left { item: from, count: to.len() as i64 };
        let note = || "moved".to_owned();
        let arrived = |item| StockEvent::Arrived { item, count: 1, note: note() };
        [left].into_iter().chain(to.into_iter().map(arrived)).collect()
    }
}

#[derive(Aggregate, Default)]
#[aggregate(category = "stock", event = StockEvent)]
struct Stock;

impl Apply<StockEvent> for Stock {
    fn apply(&mut self, _: &StockEvent) {}
}

/// How many there are of an item, and what was noted of them.
#[derive(ReadModel, Clone, Debug, PartialEq)]
#[read_model(table = "items", from(Stock), history)]
struct Item {
    #[read_model(key)]
    item: String,
    count: i64,
    notes: String,
}

impl Project<StockEvent> for Item {
    fn keys(event: &Recorded<StockEvent>) -> Result<Keys<String>, KeyError> {
        let (StockEvent::Arrived { item, .. } | StockEvent::Left { item, .. }) = &event.event;
        Ok(Keys::one(item.clone()))
    }

    fn project(row: Option<Self>, event: &Recorded<StockEvent>) -> Change<Self> {
        let (item, by, note) = match &event.event {
            StockEvent::Arrived { item, count, note } => (item, *count, note.as_str()),
            StockEvent::Left { item, count } => (item, -count, "left"),
        };
        let row = row.unwrap_or_else(|| item_of(item, 0, ""));
        Change::Set(Self { count: row.count + by, notes: format!("{} {note}", row.notes), ..row })
    }
}

fn item_of(item: &str, count: i64, notes: &str) -> Item {
    Item { item: item.to_owned(), count, notes: notes.to_owned() }
}

const LOG: [(&str, u32, &str); 8] = [
    ("arrived", 1, r#""nail""#),
    ("arrived", 2, r#"{"item":"nail","number":9}"#),
    ("delivered", 1, r#""screw""#),
    ("delivered", 3, r#"{"item":"screw","count":4,"note":"new"}"#),
    ("viewed", 3, "[]"),
    ("moved", 1, r#"{"from":"nail","to":["bolt","nail"]}"#),
    ("gone", 1, r#"{"item":"screw","count":2}"#),
    ("viewed", 1, "{}"),
];

fn expected() -> [Item; 3] {
    [
        item_of("bolt", 1, " moved"),
        item_of("nail", 9, " old old left moved"),
        item_of("screw", 3, " old new left"),
    ]
}

async fn store_once(store: &EventStore, (kind, version, json): (&str, u32, &'static str)) {
    let event = NewEvent::raw(kind, version, Payload::from_json(json).unwrap());
    let stream = StreamId::new("stock", "all").unwrap();
    store.append(Append::to(stream, ExpectedVersion::Any, [event])).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn old_events_come_from_kafka_as_what_they_became() {
    let database = TestDatabase::create().await;
    let (store, client) = (database.store().await, database.client().await);
    let relay = Relay::start(&store).await;
    let mut running = Running::start(relay.worker::<Item>(&store).batch_size(3));
    // From here on it is Kafka that brings them.
    relay.feeds("items", || store_once(&store, ("viewed", 1, "{}"))).await;
    for event in LOG {
        store_once(&store, event).await;
    }
    running.caught_up::<Item>(&store).await;
    running.stop().await;
    assert_eq!(store.query::<Item>().all().await.unwrap(), expected());
    assert_exact::<Item>(&store, &client).await;
    let slices = control::status(&store).await.unwrap().remove(0).slices;
    assert_eq!(slices[0].fed_by, FedBy::Kafka);
}

#[tokio::test(flavor = "multi_thread")]
async fn another_service_reads_old_events_as_what_they_became() {
    let (owners, database) = (TestDatabase::create().await, TestDatabase::create().await);
    let (owner, own) = (owners.store().await, database.store().await);
    let relay = Relay::start(&owner).await;
    for event in LOG {
        store_once(&owner, event).await;
    }
    let worker = Worker::consumer(&own, relay.source()).projection::<Item>();
    let running = Running::start(worker.batch_size(3));
    let end = owner.safe_position().await.unwrap();
    own.query::<Item>().wait_for(end, PATIENCE / 2).await.unwrap();
    running.stop().await;
    assert_eq!(own.query::<Item>().all().await.unwrap(), expected());
    let log = log(&owner).await;
    for position in 0..=end.get() {
        let at = Position::new(position);
        let rows = own.query::<Item>().as_of(AsOf::Position(at)).all().await.unwrap();
        assert_eq!(sorted(rows), sorted(fold::<Item>(&log, at).rows.into_values()), "as of {at}");
    }
    assert!(control::parked(&own, None).await.unwrap().is_empty());
}
