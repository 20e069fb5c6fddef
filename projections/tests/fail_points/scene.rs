//! A worker on one of each: a read model, a projection in SQL, a reactor and a saga.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use annals_eventstore::{Envelope, EventStore, Recorded, postgres::Client as Sql};
use annals_projections::{
    Cause, Change, Effect, Project, QueryReadModels, React, Reaction, Reactor, ReactorSource,
    ReadModel, SqlProjection, Start, Worker, async_trait,
};
use tokio_postgres::{Client, Row};

use crate::{
    booking::{Booking, Services, TABLES, Tell, Trip, TripEvent, assert_settled},
    support::{
        database::{TestDatabase, value},
        eventually, lease,
    },
};

/// The fail point that a timer leads to.
const TIMER: &str = "saga-timer-due";

/// How many events each trip has: every repetition and every loss shows.
#[derive(ReadModel, Clone, Debug, PartialEq)]
#[read_model(table = "trips", from(Trip))]
struct TripEvents {
    #[read_model(key)]
    trip: String,
    events: i64,
    last: i64,
}

impl Project<TripEvent> for TripEvents {
    fn project(row: Option<Self>, event: &Recorded<TripEvent>) -> Change<Self> {
        let trip = event.stream.key().to_owned();
        let events = row.map_or(0, |row| row.events) + 1;
        Change::Set(Self { trip, events, last: event.version.get() })
    }
}

/// The same in SQL.
struct Journal([String; 1]);

#[async_trait]
impl SqlProjection for Journal {
    fn name(&self) -> &str {
        "journal"
    }

    fn categories(&self) -> &[String] {
        &self.0
    }

    async fn install(&self, sql: &Sql) -> Result<(), Cause> {
        Ok(sql.batch_execute("create table journal (position bigint not null)").await?)
    }

    async fn reset(&self, sql: &Sql) -> Result<(), Cause> {
        Ok(sql.batch_execute("drop table if exists journal").await?)
    }

    async fn apply(&self, events: &[Recorded], sql: &Sql) -> Result<(), Cause> {
        for event in events {
            sql.execute("insert into journal values ($1)", &[&event.position.get()]).await?;
        }
        Ok(())
    }
}

/// An effect under its id.
struct Mails(Arc<Client>);

impl Reactor for Mails {
    fn name(&self) -> &str {
        "mails"
    }

    fn sources() -> Vec<ReactorSource<Self>> {
        vec![ReactorSource::of::<Trip>()]
    }

    fn start(&self) -> Start {
        Start::Beginning
    }
}

impl React<TripEvent> for Mails {
    async fn react(&self, _: &Recorded<TripEvent>, effect: &Effect) -> Result<Reaction, Cause> {
        let sql = "insert into mails values ($1) on conflict do nothing";
        self.0.execute(sql, &[&effect.id]).await?;
        Ok(Reaction::Done)
    }
}

pub(crate) struct Work {
    store: EventStore,
    client: Arc<Client>,
    database: Option<TestDatabase>,
    requested: AtomicUsize,
}

impl Work {
    /// On a database of its own.
    pub(crate) async fn begin() -> Self {
        let database = TestDatabase::create().await;
        let work = Self::new(database.store().await, Arc::new(database.client().await));
        work.client.batch_execute(TABLES).await.unwrap();
        work.client.batch_execute("create table mails (id uuid primary key)").await.unwrap();
        Self { database: Some(database), ..work }
    }

    pub(crate) fn new(store: EventStore, client: Arc<Client>) -> Self {
        Self { store, client, database: None, requested: AtomicUsize::new(0) }
    }

    pub(crate) fn url(&self) -> String {
        self.database.as_ref().unwrap().url()
    }

    pub(crate) fn worker(&self) -> Worker {
        Worker::new(&self.store)
            .projection::<TripEvents>()
            .sql(Journal(["trip".to_owned()]))
            .reactor(Mails(self.client.clone()))
            .saga_from::<Booking>(Start::Beginning, Services::new(&self.store, &self.client))
            .poll_interval(Duration::from_millis(20))
            .lease(lease(1000))
            .attempts(20)
            .break_after(1000)
            .stop_within(Duration::from_millis(200))
    }

    /// Requests a trip; where it is about timers, with a deadline that comes, and has the trip undone.
    pub(crate) async fn request(&self, trip: &str) {
        let event = TripEvent::Requested { deadline_ms: (trip == TIMER).then_some(1) };
        // The test's own command comes by the points, too.
        let store = &self.store;
        let key = format!("request {trip}");
        loop {
            let command = Tell { trip: trip.to_owned(), event: event.clone() };
            let command = Envelope::new(command).idempotency_key(key.clone());
            match store.execute(command).await {
                Ok(_) => break,
                Err(error) => println!("{trip}: {error}"),
            }
        }
        self.requested.fetch_add(1, Ordering::Relaxed);
    }

    /// Waits until all trips are booked, and everything has come to the end of the log.
    pub(crate) async fn settled(&self) {
        let requested = self.requested.load(Ordering::Relaxed) as i64;
        eventually("all are booked, and all have seen it", || async {
            let sql = format!(
                "select (select count(*) from annals.sagas where status in ('completed', 'compensated')) = {requested}
                    and (select count(*) from annals.checkpoints where name like 'projection:%'
                         and position >= (select max(position) from annals.events)) = 4"
            );
            value(&self.client, &sql).await
        })
        .await;
    }

    /// Everything once.
    pub(crate) async fn assert_exact(&self) {
        let sql = "select key, status = 'completed' from annals.sagas order by key";
        let sagas = self.client.query(sql, &[]).await.unwrap();
        let keys: Vec<String> = sagas.iter().map(|row| row.get(0)).collect();
        let booked = assert_settled(&self.client, &keys).await;
        // The trip with a deadline is undone, and one whose every attempt met a failure or a death.
        assert!(booked > keys.len() / 2, "only {booked} of {} are booked", keys.len());
        let rows = self.store.query::<TripEvents>().all().await.unwrap();
        assert_eq!(rows.len(), keys.len());
        let mut events = 0;
        for row in rows {
            // It was requested, and confirmed unless it was undone.
            let of_it = |saga: &&Row| saga.get::<_, &str>(0) == row.trip;
            let confirmed: bool = sagas.iter().find(of_it).expect("a saga of each trip").get(1);
            assert_eq!((row.events, row.last), (1 + i64::from(confirmed), row.events), "{row:?}");
            events += row.events;
        }
        for (what, sql) in [
            ("journal", "select count(*) from journal"),
            ("journal, each once", "select count(distinct position) from journal"),
            ("mails", "select count(*) from mails"),
        ] {
            assert_eq!(value::<i64>(&self.client, sql).await, events, "{what}");
        }
    }
}
