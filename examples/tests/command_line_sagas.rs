//! The command that looks after sagas, as its users run it.

#![allow(clippy::unwrap_used)] // A helper that fails fails its test.

mod support;

use std::process::Output;

use annals::{Append, EventStore, ExpectedVersion, NewEvent, Payload, StreamId};
use serde_json::json;
use support::{
    Database,
    admin::{admin, assert_fails_with, json as document, text},
};

fn run(database: &Database, args: &[&str]) -> Output {
    admin(args).env("DATABASE_URL", database.url()).output().unwrap()
}

/// One that is stuck, one that waits for a timer, and one that has ended.
async fn recorded() -> Database {
    let database = Database::create().await;
    let store = EventStore::connect(&database.url()).await.unwrap();
    let stuck = Payload::from_json(r#"{"reason":"step hotel could not be undone"}"#).unwrap();
    let stuck = NewEvent::raw("saga.stuck", 1, stuck);
    let stream = StreamId::new("booking", "trip-7").unwrap();
    store.append(Append::to(stream, ExpectedVersion::NoStream, [stuck])).await.unwrap();
    store.close().await;
    database
        .execute(
            "insert into annals.sagas
                 (saga, key, status, step, reason, attempts, look_at, begun_at) values
             ('booking', 'trip-7', 'stuck', 'hotel', 'step hotel could not be undone: closed', 10,
              null, '2026-01-02T10:00:00Z'),
             ('booking', 'trip-8', 'running', null, null, 0, '2026-01-03T10:00:00Z',
              '2026-01-01T10:00:00Z'),
             ('booking', 'trip-9', 'completed', null, null, 0, null, '2026-01-01T09:00:00Z')",
        )
        .await;
    database
}

#[tokio::test(flavor = "multi_thread")]
async fn those_that_have_not_ended_are_listed() {
    let database = recorded().await;
    let listed = run(&database, &["sagas", "list"]);
    assert_eq!(listed.status.code(), Some(2), "one is stuck");
    assert_eq!(
        text(&listed.stdout),
        "booking trip-7: stuck at step hotel, attempt 10, since 2026-01-02T10:00:00Z\n   \
         step hotel could not be undone: closed\n\
         booking trip-8: running, since 2026-01-01T10:00:00Z, next timer 2026-01-03T10:00:00Z\n"
    );
    let listed = document(&run(&database, &["sagas", "list", "booking", "--output", "json"]));
    assert_eq!(listed["sagas"][0]["status"], "stuck");
    assert_eq!(listed["sagas"][1]["next_timer"], "2026-01-03T10:00:00Z");
    let others = run(&database, &["sagas", "list", "other"]);
    assert_eq!(
        (others.status.code(), &*text(&others.stdout)),
        (Some(0), "No saga is under way.\n")
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn one_is_shown_with_its_events() {
    let database = recorded().await;
    let shown = text(&run(&database, &["sagas", "show", "booking", "trip-7"]).stdout);
    let lines: Vec<_> = shown.lines().collect();
    assert!(lines[0].starts_with("booking trip-7: stuck at step hotel"), "{shown}");
    let event = lines[2];
    assert!(
        event.starts_with("     1  ") && event.contains("  saga.stuck  {\"reason\""),
        "{shown}"
    );
    let shown = run(&database, &["sagas", "show", "booking", "trip-7", "--output", "json"]);
    let shown = document(&shown);
    assert_eq!(shown["saga"]["attempts"], 10);
    assert_eq!(shown["events"][0]["type"], "saga.stuck");
    assert_fails_with(&run(&database, &["sagas", "show", "booking", "1"]), "there is no saga");
}

#[tokio::test(flavor = "multi_thread")]
async fn something_is_asked_of_one() {
    let database = recorded().await;
    let ask = |what: &str, key: &str| {
        run(&database, &["sagas", what, "booking", key, "--reason", "the hotel is back"])
    };
    assert_eq!(text(&ask("retry", "trip-7").stdout), "booking trip-7 is asked to retry.\n");
    let asked = "select count(*) from annals.sagas where key = 'trip-7' and asked = 'retry'
                 and asked_why = 'the hotel is back' and look_at <= clock_timestamp()";
    assert_eq!(database.count(asked).await, 1);
    assert_fails_with(&ask("abort", "trip-7"), "is asked to retry already");
    assert_fails_with(&ask("skip", "trip-8"), "is running: it cannot skip");
    assert_fails_with(&ask("abort", "trip-9"), "is completed: it cannot abort");
    assert_fails_with(&ask("compensate", "trip-1"), "there is no saga");
    let args = ["sagas", "compensate", "booking", "trip-8", "--reason", "x", "--output", "json"];
    let asked = document(&run(&database, &args));
    assert_eq!(asked, json!({ "saga": "booking", "key": "trip-8", "asked": "compensate" }));
    // Why is never left out.
    assert_eq!(run(&database, &["sagas", "abort", "booking", "trip-8"]).status.code(), Some(1));
}
