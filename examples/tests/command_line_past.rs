//! The commands that replay the past of a read model, and forget it.

#![allow(clippy::unwrap_used)] // A helper that fails fails its test.

mod support;

use std::{process::Output, time::Duration};

use annals::{
    Apply, AsOf, Change, Event, EventStore, Position, Project, QueryReadModels, ReadModel,
    Recorded, Worker, cli::App,
};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use support::{
    Database,
    admin::{assert_fails_with, recorded, text},
    tool::run,
};
use tokio_util::sync::CancellationToken;

#[derive(Event, Serialize, Deserialize)]
enum LoanEvent {
    StatusReached { status: String },
}

#[derive(annals::Aggregate, Default)]
#[aggregate(category = "loan_application", event = LoanEvent)]
struct Loan;

impl Apply<LoanEvent> for Loan {
    fn apply(&mut self, _: &LoanEvent) {}
}

/// How often a loan came to another status; without history.
#[derive(ReadModel, Clone)]
#[read_model(table = "loan_counts", from(Loan))]
struct Counts {
    #[read_model(key)]
    loan: String,
    events: i64,
}

impl Project<LoanEvent> for Counts {
    fn project(row: Option<Self>, event: &Recorded<LoanEvent>) -> Change<Self> {
        let LoanEvent::StatusReached { status } = &event.event;
        assert!(!status.is_empty());
        let events = row.map_or(0, |row| row.events) + 1;
        Change::Set(Self { loan: event.stream.key().to_owned(), events })
    }
}

/// The same with history.
#[derive(ReadModel, Clone)]
#[read_model(table = "loan_histories", from(Loan), history)]
struct Histories {
    #[read_model(key)]
    loan: String,
    events: i64,
}

impl Project<LoanEvent> for Histories {
    fn project(row: Option<Self>, event: &Recorded<LoanEvent>) -> Change<Self> {
        let LoanEvent::StatusReached { status } = &event.event;
        assert!(!status.is_empty());
        let events = row.map_or(0, |row| row.events) + 1;
        Change::Set(Self { loan: event.stream.key().to_owned(), events })
    }
}

#[tokio::test]
async fn tool() {
    support::tool::be(App::new().projection::<Counts>().projection::<Histories>()).await;
}

fn document(output: &Output) -> Value {
    assert_eq!((output.status.code(), &*text(&output.stderr)), (Some(0), ""));
    serde_json::from_slice(&output.stdout).unwrap()
}

/// Three loans, each of two events, and their read models.
async fn projected() -> (Database, EventStore) {
    let (database, store) = recorded().await;
    let stop = CancellationToken::new();
    let worker = Worker::new(&store).projection::<Counts>().projection::<Histories>();
    let worker = tokio::spawn(worker.run_until(stop.clone()));
    let (end, patience) = (store.safe_position().await.unwrap(), Duration::from_secs(20));
    store.query::<Counts>().wait_for(end, patience).await.unwrap();
    store.query::<Histories>().wait_for(end, patience).await.unwrap();
    stop.cancel();
    worker.await.unwrap().unwrap();
    (database, store)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_read_model_is_replayed_up_to_a_moment_and_that_is_dropped() {
    let (database, _store) = projected().await;
    let replayed = document(&run(&database, "replay loan_counts --to 3 --output json"));
    let expected = json!({
        "position": 3, "rows": 2, "parked": 0, "table": "\"annals_past\".\"loan_counts\"",
    });
    assert_eq!((&replayed["replayed"], &replayed["discarded"]), (&expected, &json!(false)));
    let sum = "select sum(events)::bigint from annals_past.loan_counts";
    assert_eq!(database.count(sum).await, 3);
    assert_eq!(database.count("select sum(events)::bigint from loan_counts").await, 6, "as it was");
    let replayed = run(&database, "replay loan_counts --to 4");
    assert_eq!(
        text(&replayed.stdout),
        "loan_counts as of position 4 has 2 rows: select * from \"annals_past\".\"loan_counts\"\n\
         `replay loan_counts --discard` drops them.\n"
    );
    assert_fails_with(
        &run(&database, "replay loan_counts --to 99"),
        "has come to position 6, the query needs 99",
    );
    assert_eq!(run(&database, "replay loan_counts").status.code(), Some(1), "to which moment?");

    // What a rebuild keeps is another matter.
    assert_eq!(run(&database, "rebuild loan_counts").status.code(), Some(0));
    let dropped = document(&run(&database, "replay loan_counts --discard --output json"));
    assert_eq!(dropped, json!({"projection": "loan_counts", "replayed": null, "discarded": true}));
    let left = "select count(*) from pg_tables where schemaname = 'annals_past'";
    assert_eq!(database.count(left).await, 0);
    assert_eq!(run(&database, "rebuild loan_counts --rollback").status.code(), Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_replay_that_was_stopped_left_is_dropped() {
    let (database, store) = projected().await;
    assert_eq!(run(&database, "replay loan_counts --to 3").status.code(), Some(0));
    // As of one that was killed on its way.
    database.execute("insert into annals.checkpoints values ('past:loan_counts', 2)").await;
    assert_eq!(run(&database, "replay loan_counts --discard").status.code(), Some(0));
    let left = "select count(*) from annals.checkpoints where name like 'past:%'";
    assert_eq!(database.count(left).await, 0, "it would keep streams from being archived");
    store.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn history_is_forgotten_up_to_a_moment() {
    let (database, store) = projected().await;
    let refused = run(&database, "forget-history loan_histories --before 4");
    let why =
        "public.loan_histories stays as it is: say --yes to forget its history before position 4";
    assert_fails_with(&refused, why);
    let forgotten = run(&database, "forget-history loan_histories --before 4 --yes --output json");
    let expected = json!({"projection": "loan_histories", "history_from": 4, "versions": 2});
    assert_eq!(document(&forgotten), expected);
    let as_of = |position| {
        store.query::<Histories>().as_of(AsOf::Position(Position::new(position))).count()
    };
    assert!(as_of(3).await.is_err());
    assert_eq!(as_of(4).await.unwrap(), 2);
    let status = text(&run(&database, "status --output json").stdout);
    let status: Value = serde_json::from_str(&status).unwrap();
    assert_eq!(status["projections"][1]["history_from"], 4, "{status}");

    let future = run(&database, "forget-history loan_histories --before 99 --yes");
    assert_fails_with(&future, "99");
    let none = run(&database, "forget-history loan_counts --before 4 --yes");
    assert_fails_with(&none, "history");
}
