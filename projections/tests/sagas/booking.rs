//! The saga of the tests: a trip is booked at three services and confirmed in the own store, or nothing of it is.

use std::{sync::Arc, time::Duration};

use annals_eventstore::{
    Aggregate, Apply, Command, Event, EventStore, Handle, Recorded, breaker::CircuitBreaker,
};
use annals_projections::{
    Cause, Saga,
    saga::{Action, Actions, Answer, Attempt, On, Perform, Process, Retry, Step},
};
use serde::{Deserialize, Serialize};
use tokio_postgres::Client;
use uuid::Uuid;

#[derive(Event, Serialize, Deserialize, Clone, Debug, PartialEq)]
pub(crate) enum TripEvent {
    Requested { deadline_ms: Option<u64> },
    Cancelled,
    Confirmed,
}

#[derive(Aggregate, Default)]
#[aggregate(category = "trip", event = TripEvent)]
pub(crate) struct Trip;

impl Apply<TripEvent> for Trip {
    fn apply(&mut self, _: &TripEvent) {}
}

#[derive(Command, Serialize, Clone)]
#[command(aggregate = Trip)]
pub(crate) struct Tell {
    #[command(id)]
    pub(crate) trip: String,
    pub(crate) event: TripEvent,
}

impl Handle<Tell> for Trip {
    fn handle(&self, command: Tell) -> Result<Vec<TripEvent>, Self::Error> {
        // Each time anew, so that a confirmation that is repeated is seen.
        Ok(vec![command.event])
    }
}

pub(crate) async fn tell(store: &EventStore, trip: &str, event: TripEvent) {
    store.execute(Tell { trip: trip.to_owned(), event }).await.unwrap();
}

pub(crate) async fn request(store: &EventStore, trip: &str) {
    tell(store, trip, TripEvent::Requested { deadline_ms: None }).await;
}

#[derive(Event, Serialize, Deserialize, Clone, Debug, PartialEq)]
pub(crate) enum BookingEvent {
    Booked { step: String, reference: String },
}

#[derive(Serialize, Deserialize, Clone, Debug, PartialEq)]
pub(crate) enum Call {
    Book,
    Cancel { reference: Option<String> },
    Confirm,
}

#[derive(Saga, Default)]
#[saga(category = "booking", event = BookingEvent, call = Call, reply = String, from(Trip))]
pub(crate) struct Booking {
    references: Vec<(String, String)>,
}

impl Booking {
    fn cancel(&self, step: &str) -> Call {
        let mut references = self.references.iter();
        let reference = references.find(|(of, _)| of == step).map(|(_, one)| one.clone());
        Call::Cancel { reference }
    }
}

impl Apply<BookingEvent> for Booking {
    fn apply(&mut self, event: &BookingEvent) {
        let BookingEvent::Booked { step, reference } = event;
        self.references.push((step.clone(), reference.clone()));
    }
}

/// Short waits, so that the tests are.
const fn retry(attempts: u32) -> Retry {
    Retry::attempts(attempts).waits(Duration::from_millis(20), Duration::from_millis(100))
}

impl Process for Booking {
    fn steps() -> Vec<Step<Self>> {
        let step = |name, undo| {
            Self::step(name, |_| Call::Book)
                .undo(undo)
                .retry(retry(4))
                .retry_undo(retry(8))
                .time_limit(Duration::from_secs(8))
        };
        vec![
            step("flight", |saga| saga.cancel("flight")),
            step("hotel", |saga| saga.cancel("hotel")),
            step("car", |saga| saga.cancel("car")),
            Self::step("confirm", |_| Call::Confirm).retry(retry(30)).must_succeed(),
        ]
    }

    fn answered(&self, step: &str, reply: &String) -> Actions<Self> {
        assert_ne!(reply, "a reply that nobody expects");
        vec![Action::record(BookingEvent::Booked {
            step: step.to_owned(),
            reference: reply.clone(),
        })]
    }
}

impl On<TripEvent> for Booking {
    fn on(&self, event: &Recorded<TripEvent>) -> Actions<Self> {
        match event.event {
            TripEvent::Requested { deadline_ms } => {
                let deadline = deadline_ms.map(Duration::from_millis);
                let timer = deadline.map(|after| Action::timer("deadline", after));
                timer.into_iter().chain([Action::RunAll]).collect()
            }
            TripEvent::Cancelled => vec![Action::compensate("the traveller cancelled")],
            TripEvent::Confirmed => vec![],
        }
    }
}

/// What the services keep: each call as it comes, and each booking once.
pub(crate) const TABLES: &str = "
    create table calls (
        number bigserial primary key, id uuid not null, saga text not null, step text not null,
        kind text not null, undoes uuid, attempt integer not null, worker text not null,
        process integer not null default pg_backend_pid());
    create table bookings (
        id uuid primary key, saga text not null, step text not null, state text not null)";

/// How a service treats a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mood {
    Fine,
    Refuses,
    /// It fails before, or after it had its effect.
    FailsBefore,
    FailsAfter,
    /// It has its effect and never answers.
    Stalls,
    /// Not now.
    Later,
    /// It answers what the saga cannot take.
    Raves,
    Panics,
    /// This process does this to itself, before or after the effect.
    KillsBefore,
    KillsAfter,
    PausesAfter,
}

type Moods = dyn Fn(&Call, &Attempt) -> Mood + Send + Sync;

/// The services. They know a repetition by its id, and refuse to book what was cancelled before.
#[derive(Clone)]
pub(crate) struct Services {
    store: EventStore,
    client: Arc<Client>,
    mood: Arc<Moods>,
    worker: String,
    concurrency: usize,
    circuit: Option<CircuitBreaker>,
}

impl Services {
    pub(crate) fn new(store: &EventStore, client: &Arc<Client>) -> Self {
        Self {
            store: store.clone(),
            client: client.clone(),
            mood: Arc::new(|_, _| Mood::Fine),
            worker: "worker".to_owned(),
            concurrency: 16,
            circuit: None,
        }
    }

    pub(crate) fn mood(
        self,
        mood: impl Fn(&Call, &Attempt) -> Mood + Send + Sync + 'static,
    ) -> Self {
        Self { mood: Arc::new(mood), ..self }
    }

    pub(crate) fn known_as(self, worker: &str) -> Self {
        Self { worker: worker.to_owned(), ..self }
    }

    /// Bookings and cancellations go through a breaker.
    pub(crate) fn breaker(self, circuit: &CircuitBreaker) -> Self {
        Self { circuit: Some(circuit.clone()), ..self }
    }

    pub(crate) fn one_at_a_time(self) -> Self {
        Self { concurrency: 1, ..self }
    }

    async fn note(&self, kind: &str, attempt: &Attempt) -> Result<(), Cause> {
        let sql = "insert into calls (id, saga, step, kind, undoes, attempt, worker)
                   values ($1, $2, $3, $4, $5, $6, $7)";
        let (key, number) = (attempt.saga.key(), attempt.attempt as i32);
        let Attempt { id, step, undoes, .. } = attempt;
        self.client.execute(sql, &[id, &key, step, &kind, undoes, &number, &self.worker]).await?;
        Ok(())
    }

    async fn book(&self, attempt: &Attempt) -> Result<Answer<String>, Cause> {
        let sql = "insert into bookings as b values ($1, $2, $3, 'booked')
                   on conflict (id) do update set state = b.state returning state";
        let key = attempt.saga.key();
        let row = self.client.query_one(sql, &[&attempt.id, &key, &attempt.step]).await?;
        Ok(match row.get(0) {
            "booked" => Answer::Done(attempt.id.to_string()),
            _ => Answer::Refused("it was cancelled before".to_owned()),
        })
    }

    async fn cancel(
        &self,
        attempt: &Attempt,
        reference: Option<&String>,
    ) -> Result<Answer<String>, Cause> {
        let undoes = attempt.undoes.unwrap();
        assert!(reference.is_none_or(|reference| *reference == undoes.to_string()));
        let sql = "insert into bookings values ($1, $2, $3, 'cancelled')
                   on conflict (id) do update set state = 'cancelled'";
        let key = attempt.saga.key();
        self.client.execute(sql, &[&undoes, &key, &attempt.step]).await?;
        Ok(Answer::Done(String::new()))
    }
}

impl Perform<Booking> for Services {
    async fn perform(&self, call: &Call, attempt: &Attempt) -> Result<Answer<String>, Cause> {
        let kind = match call {
            Call::Book => "book",
            Call::Cancel { .. } => "cancel",
            Call::Confirm => "confirm",
        };
        self.note(kind, attempt).await?;
        let mood = (self.mood)(call, attempt);
        match mood {
            Mood::Refuses => return Ok(Answer::Refused("the service refuses".to_owned())),
            Mood::FailsBefore => return Err("the service fails".into()),
            Mood::Later => return Ok(Answer::RetryAfter(Duration::from_millis(30))),
            Mood::Panics => panic!("the client of the service panics"),
            Mood::KillsBefore => signal("-KILL"),
            _ => {}
        }
        let answer = match call {
            Call::Book => self.book(attempt).await?,
            Call::Cancel { reference } => self.cancel(attempt, reference.as_ref()).await?,
            Call::Confirm => {
                let trip = attempt.saga.key().to_owned();
                let confirm = Tell { trip, event: TripEvent::Confirmed };
                attempt.execute(&self.store, confirm, |done| done.version.to_string()).await?
            }
        };
        match mood {
            Mood::FailsAfter => return Err("the connection broke".into()),
            Mood::Stalls => std::future::pending().await,
            Mood::Raves => return Ok(Answer::Done("a reply that nobody expects".to_owned())),
            Mood::KillsAfter => signal("-KILL"),
            Mood::PausesAfter => signal("-STOP"),
            _ => {}
        }
        Ok(answer)
    }

    fn circuit(&self, call: &Call) -> Option<&CircuitBreaker> {
        self.circuit.as_ref().filter(|_| *call != Call::Confirm)
    }

    fn concurrency(&self) -> usize {
        self.concurrency
    }
}

fn signal(signal: &str) {
    let id = std::process::id().to_string();
    let status = std::process::Command::new("kill").args([signal, &id]).status().unwrap();
    assert!(status.success(), "kill {signal} {id}");
}

/// One of so many, always the same for one id.
pub(crate) fn one_of(many: u8, id: Uuid) -> bool {
    id.as_bytes()[15].is_multiple_of(many)
}

/// Asserts that all sagas of these keys have ended, each with all of its trip or with nothing of it. Says how many are
/// booked.
pub(crate) async fn assert_settled(client: &Client, keys: &[String]) -> usize {
    let mut completed = 0;
    for key in keys {
        let row = client
            .query_one(
                "select status,
                     (select count(*) from bookings b where b.saga = s.key and state = 'booked'),
                     (select count(distinct step) from bookings b
                      where b.saga = s.key and state = 'booked'),
                     (select count(*) from annals.events e join annals.streams t on t.id = e.stream_id
                      where t.category = 'trip' and t.key = s.key and e.type = 'confirmed')
                 from annals.sagas s where saga = 'booking' and key = $1",
                &[key],
            )
            .await
            .unwrap();
        let found: (&str, i64, i64, i64) = (row.get(0), row.get(1), row.get(2), row.get(3));
        match found.0 {
            "completed" => {
                assert_eq!(found, ("completed", 3, 3, 1), "{key}");
                completed += 1;
            }
            _ => assert_eq!(found, ("compensated", 0, 0, 0), "{key}"),
        }
    }
    // Nothing was noted twice.
    let twice = client
        .query(
            "select e.payload::text from annals.events e
             where type in ('saga.answered', 'saga.refused', 'saga.called')
             group by e.type, e.payload->>'id', e.payload::text having count(*) > 1",
            &[],
        )
        .await
        .unwrap();
    assert!(twice.is_empty(), "{twice:?}");
    // No call of a saga was made with another content or step under its id.
    let mixed = client
        .query(
            "select id from calls group by id having count(distinct (saga, step, kind)) > 1",
            &[],
        )
        .await
        .unwrap();
    assert!(mixed.is_empty(), "{mixed:?}");
    completed
}
