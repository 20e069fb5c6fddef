//! The command line of a program that runs more than read models: a projection in SQL, a reactor and a saga.

#![allow(clippy::unwrap_used)] // A helper that fails fails its test.

mod support;

use std::time::Duration;

use annals::{
    Apply, Cause, Event, EventStore, Position, Recorded, Saga, SqlProjection, Worker, async_trait,
    cli::App,
    control,
    postgres::Client,
    saga::{Action, Actions, On, Process, Step},
};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use support::{
    Database,
    admin::{assert_fails_with, recorded, text},
    tool::run,
};
use tokio_util::sync::CancellationToken;

/// Counts the events.
struct Counted(Vec<String>);

impl Counted {
    fn new() -> Self {
        Self(vec!["loan_application".to_owned()])
    }
}

#[async_trait]
impl SqlProjection for Counted {
    fn name(&self) -> &str {
        "counted"
    }

    fn categories(&self) -> &[String] {
        &self.0
    }

    async fn install(&self, sql: &Client) -> Result<(), Cause> {
        let create = "create table counted (events bigint); insert into counted values (0)";
        Ok(sql.batch_execute(create).await?)
    }

    async fn reset(&self, sql: &Client) -> Result<(), Cause> {
        Ok(sql.batch_execute("drop table if exists counted").await?)
    }

    async fn apply(&self, events: &[Recorded], sql: &Client) -> Result<(), Cause> {
        sql.execute("update counted set events = events + $1", &[&(events.len() as i64)]).await?;
        Ok(())
    }
}

#[derive(Event, Serialize, Deserialize)]
enum OfferEvent {
    Sent,
}

#[derive(Serialize, Deserialize)]
enum Call {
    Send,
}

#[derive(Event, Serialize, Deserialize)]
enum LoanEvent {
    StatusReached,
}

#[derive(annals::Aggregate, Default)]
#[aggregate(category = "loan_application", event = LoanEvent)]
struct Loan;

impl Apply<LoanEvent> for Loan {
    fn apply(&mut self, _: &LoanEvent) {}
}

#[derive(Saga, Default)]
#[saga(category = "offer", event = OfferEvent, call = Call, from(Loan))]
struct Offer;

impl Apply<OfferEvent> for Offer {
    fn apply(&mut self, _: &OfferEvent) {}
}

impl Process for Offer {
    fn steps() -> Vec<Step<Self>> {
        vec![Self::step("send", |_| Call::Send)]
    }
}

impl On<LoanEvent> for Offer {
    fn on(&self, _: &Recorded<LoanEvent>) -> Actions<Self> {
        vec![Action::RunAll]
    }
}

#[tokio::test]
async fn tool() {
    support::tool::be(App::new().sql(Counted::new()).reactor("mailer").saga::<Offer>()).await;
}

fn status(database: &Database) -> (i32, Vec<Value>) {
    let output = run(database, "status --output json");
    let document: Value = serde_json::from_slice(&output.stdout).unwrap();
    (output.status.code().unwrap(), document["projections"].as_array().unwrap().clone())
}

fn fields(of: &Value, names: &[&str]) -> Value {
    names.iter().map(|name| of[name].clone()).collect()
}

/// Has a worker bring the projection in SQL to the end of the log.
async fn counted(store: &EventStore) {
    let stop = CancellationToken::new();
    let worker = tokio::spawn(Worker::new(store).sql(Counted::new()).run_until(stop.clone()));
    let end = store.safe_position().await.unwrap();
    loop {
        let all = control::status(store).await.unwrap();
        if all.iter().any(|one| one.name == "counted" && one.position == end) {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    stop.cancel();
    worker.await.unwrap().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn status_knows_all_kinds_also_those_that_never_ran() {
    let (database, store) = recorded().await;
    let names = ["name", "kind", "state", "behind", "program_version"];
    let (code, projections) = status(&database);
    assert_eq!(code, 2);
    let seen: Vec<_> = projections.iter().map(|one| fields(one, &names)).collect();
    let expected = json!([
        // It is built from the first event on; where the others begin is not known before they do.
        ["counted", "sql", "not_begun", 6, 1],
        ["mailer", "reactor", "not_begun", null, 1],
        ["offer", "saga", "not_begun", null, 1],
    ]);
    assert_eq!(json!(seen), expected);
    let words = text(&run(&database, "status").stdout);
    assert!(words.contains("\n counted      SQL       not begun          -        6"), "{words}");
    assert!(words.contains("\n- mailer: no worker has begun with it\n"), "{words}");

    counted(&store).await;
    // As its worker notes it.
    let begun = "insert into annals.projections (name, kind, version, slices)
                 values ('projection:offer', 'reactor', 1, 1)";
    database.execute(begun).await;
    let begun = "insert into annals.checkpoints (name, position) values ('projection:offer', 4)";
    database.execute(begun).await;
    let (_, projections) = status(&database);
    assert_eq!(fields(&projections[0], &names), json!(["counted", "sql", "stopped", 0, 1]));
    assert_eq!(fields(&projections[2], &names), json!(["offer", "reactor", "stopped", 2, 1]));
    let words = text(&run(&database, "status").stdout);
    let mistaken = "\n- offer is a reactor in this store, and a saga in this program\n";
    assert!(words.contains(mistaken), "{words}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_projection_in_sql_is_reset_and_nothing_is_rebuilt() {
    let (database, store) = recorded().await;
    counted(&store).await;
    database.execute("update counted set events = 99").await;
    let asked = run(&database, "reset counted");
    assert_fails_with(&asked, "stays as it is: say --yes to drop it and what it has made");
    let reset = run(&database, "reset counted --yes --output json");
    assert_eq!(reset.status.code(), Some(0), "{}", text(&reset.stderr));
    let document: Value = serde_json::from_slice(&reset.stdout).unwrap();
    assert_eq!(document, json!({ "projection": "counted", "reset": true }));
    let there = "select count(*) from pg_class where relname = 'counted'";
    assert_eq!(database.count(there).await, 0);
    counted(&store).await;
    assert_eq!(database.count("select events from counted").await, 6, "built anew");

    let in_place = "is built anew in its place and not beside it: `reset counted`";
    assert_fails_with(&run(&database, "rebuild counted"), in_place);
    for command in ["reset mailer --yes", "rebuild mailer"] {
        let refused =
            "mailer is a reactor: what it has done outside of the database cannot be taken back";
        assert_fails_with(&run(&database, command), refused);
    }
    assert_fails_with(&run(&database, "reset offer --yes"), "offer is a saga: what it has done");
    assert_fails_with(
        &run(&database, "ddl mailer"),
        "mailer is a reactor; this is for read models",
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn names_are_known_and_others_refused() {
    let (database, store) = recorded().await;
    counted(&store).await;
    for command in ["pause lost --reason x", "resume lost", "parked list lost"] {
        let why = "there is no projection \"lost\"; there are counted, mailer, offer";
        assert_fails_with(&run(&database, command), why);
    }
    let why = "this program has no projection \"lost\"; it has counted, mailer, offer";
    assert_fails_with(&run(&database, "reset lost --yes"), why);
    let why = "no worker has begun with the projection \"mailer\" in this store yet";
    assert_fails_with(&run(&database, "pause mailer --reason x"), why);
    let listed = run(&database, "parked list mailer --output json");
    assert_eq!(listed.status.code(), Some(0), "{}", text(&listed.stderr));

    assert_eq!(run(&database, "pause counted --reason moves").status.code(), Some(0));
    let (_, projections) = status(&database);
    let paused = fields(&projections[0], &["state", "reason", "position"]);
    assert_eq!(paused, json!(["paused", "moves", Position::new(6)]));
    let resumed = text(&run(&database, "resume counted").stdout);
    assert_eq!(resumed, "counted goes on; it was paused: moves\n");
}
