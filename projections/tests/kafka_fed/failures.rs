//! Events that fail, and projections of other kinds.

use std::sync::{
    Mutex,
    atomic::{AtomicBool, Ordering},
};

use annals_eventstore::{EventStore, Position, Recorded, postgres::Client};
use annals_projections::{
    Cause, Change, Effect, Project, QueryReadModels, React, Reaction, Reactor, ReactorSource,
    ReadModel, SqlProjection, Start, Worker, async_trait, control,
};

use crate::{
    relay::Relay,
    support::{
        Running,
        database::{TestDatabase, value},
        eventually,
        ledger::{Audit, AuditEvent, Ledger, LedgerEvent, add},
        load::{Load, seeded},
        oracle::{assert_exact, log},
    },
};

/// An amount that cannot be projected before the code is mended.
const POISON: i64 = 666_666;
static MENDED: AtomicBool = AtomicBool::new(false);

#[derive(ReadModel, Clone, Debug, PartialEq)]
#[read_model(table = "fragile", from(Ledger))]
struct Fragile {
    #[read_model(key)]
    ledger: String,
    total: i64,
    events: i64,
}

impl Project<LedgerEvent> for Fragile {
    fn project(row: Option<Self>, event: &Recorded<LedgerEvent>) -> Change<Self> {
        let ledger = event.stream.key().to_owned();
        let row = row.unwrap_or(Self { ledger, total: 0, events: 0 });
        let LedgerEvent::Added { amount } = event.event else { return Change::Keep };
        assert!(amount != POISON || MENDED.load(Ordering::SeqCst), "it cannot be projected");
        Change::Set(Self { total: row.total + amount, events: row.events + 1, ..row })
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_fails_is_parked_and_goes_on_once_the_code_is_mended() {
    let database = TestDatabase::create().await;
    let (store, client) = (database.store().await, database.client().await);
    let relay = Relay::start(&store).await;
    add(&store, "a", 1).await;
    relay.published().await;
    let mut running = Running::start(relay.worker::<Fragile>(&store));
    relay.feeds("fragile", || async { drop(add(&store, "b", 1).await) }).await;
    let bad = add(&store, "a", POISON).await.last_position;
    add(&store, "c", 2).await;
    add(&store, "a", 3).await;
    running.caught_up::<Fragile>(&store).await;
    let parked = control::parked(&store, Some("fragile")).await.unwrap();
    assert_eq!(parked.len(), 1, "{parked:?}");
    assert_eq!((parked[0].stream.key(), parked[0].position), ("a", bad));
    let row = store.query::<Fragile>().get(&"c".to_owned()).await.unwrap();
    assert_eq!(row.unwrap().total, 2, "others go on");
    // It is among the dead letters, as it was published, with where it was and why.
    let letters = relay.dead_letters("ledger").await;
    let of_bad: Vec<_> = letters
        .iter()
        .filter(|letter| letter["ce_sequence"] == format!("{:020}", bad.get()))
        .collect();
    assert_eq!(of_bad.len(), 1, "{letters:?}");
    assert_eq!(of_bad[0]["annals_dlq_projection"], "fragile");
    assert_eq!(of_bad[0]["annals_dlq_topic"], relay.topic("ledger"));
    assert!(of_bad[0]["annals_dlq_reason"].contains("cannot be projected"), "{letters:?}");
    MENDED.store(true, Ordering::SeqCst);
    control::retry(&store, "fragile", None).await.unwrap();
    eventually("it went on", || async { control::parked(&store, None).await.unwrap().is_empty() })
        .await;
    add(&store, "a", 4).await;
    running.caught_up::<Fragile>(&store).await;
    running.stop().await;
    assert_exact::<Fragile>(&store, &client).await;
}

/// Every event, by its position: one that came twice would be refused.
struct Journal {
    categories: Vec<String>,
}

#[async_trait]
impl SqlProjection for Journal {
    fn name(&self) -> &str {
        "journal"
    }

    fn categories(&self) -> &[String] {
        &self.categories
    }

    async fn install(&self, sql: &Client) -> Result<(), Cause> {
        Ok(sql.batch_execute("create table journal (position bigint primary key)").await?)
    }

    async fn reset(&self, sql: &Client) -> Result<(), Cause> {
        Ok(sql.batch_execute("drop table journal").await?)
    }

    async fn apply(&self, events: &[Recorded], sql: &Client) -> Result<(), Cause> {
        let positions: Vec<_> = events.iter().map(|event| event.position.get()).collect();
        let insert = "insert into journal select unnest($1::bigint[])";
        sql.execute(insert, &[&positions]).await?;
        Ok(())
    }
}

/// Remembers what it has reacted to.
#[derive(Default)]
struct Witness(Mutex<Vec<Position>>);

struct Shared(std::sync::Arc<Witness>);

impl Reactor for Shared {
    fn name(&self) -> &str {
        "witness"
    }

    fn sources() -> Vec<ReactorSource<Self>> {
        vec![ReactorSource::of::<Ledger>(), ReactorSource::of::<Audit>()]
    }

    fn start(&self) -> Start {
        Start::Beginning
    }
}

impl React<LedgerEvent> for Shared {
    async fn react(&self, _: &Recorded<LedgerEvent>, effect: &Effect) -> Result<Reaction, Cause> {
        self.0.0.lock().unwrap().push(effect.position);
        Ok(Reaction::Done)
    }
}

impl React<AuditEvent> for Shared {
    async fn react(&self, _: &Recorded<AuditEvent>, effect: &Effect) -> Result<Reaction, Cause> {
        self.0.0.lock().unwrap().push(effect.position);
        Ok(Reaction::Done)
    }
}

async fn positions(store: &EventStore) -> Vec<Position> {
    let log = log(store).await;
    let of = |event: &&Recorded| ["ledger", "audit"].contains(&event.stream.category());
    log.iter().filter(of).map(|event| event.position).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn projections_in_sql_and_reactors_get_each_event() {
    let database = TestDatabase::create().await;
    let (store, client) = (database.store().await, database.client().await);
    let relay = Relay::start(&store).await;
    let (seed, _) = seeded();
    let witness = std::sync::Arc::new(Witness::default());
    let load = Load::start(&store, seed, 2, 80);
    let journal = || Journal { categories: vec!["ledger".into(), "audit".into()] };
    let worker = || Worker::new(&store).sql(journal()).kafka(relay.source()).batch_size(5);
    // One that is dropped wherever it is, and the one that goes on.
    let first = Running::start(worker());
    tokio::time::sleep(std::time::Duration::from_millis(300)).await;
    first.abort().await;
    let running = Running::start(worker().reactor(Shared(witness.clone())));
    load.done().await;
    let end = relay.published().await;
    eventually("both are there", || async {
        let status = control::status(&store).await.unwrap();
        status.len() == 2 && status.iter().all(|projection| projection.position >= end)
    })
    .await;
    running.stop().await;
    let expected = positions(&store).await;
    let count: i64 = value(&client, "select count(*) from journal").await;
    assert_eq!(count, expected.len() as i64);
    let mut seen = witness.0.lock().unwrap().clone();
    seen.sort_unstable();
    assert_eq!(seen, expected, "each once: it was never killed");
}
