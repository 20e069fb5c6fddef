//! The commands that look at events and states, as their users run them.

#![allow(clippy::unwrap_used)] // A helper that fails fails its test.

mod support;

use std::{
    io::{BufRead, BufReader},
    process::{Child, ChildStdout, Command, Output, Stdio},
    time::Duration,
};

use annals::{
    Append, EventQuery, EventStore, ExpectedVersion, Metadata, NewEvent, Payload, Recorded,
    StreamId,
};
use futures::TryStreamExt;
use serde_json::{Value, json};
use support::{
    Database,
    admin::{admin, assert_fails_with, json, recorded, text},
};

fn run(database: &Database, args: &[&str]) -> Output {
    admin(args).env("DATABASE_URL", database.url()).output().unwrap()
}

fn tail(database: &Database, args: &[&str]) -> Output {
    run(database, &[&["events", "tail"], args].concat())
}

fn show(database: &Database, args: &[&str]) -> Output {
    run(database, &[&["events", "show"], args].concat())
}

fn state(database: &Database, args: &[&str]) -> Output {
    run(database, &[&["state"], args].concat())
}

/// The lines of JSON that were printed; nothing else was.
fn lines(output: &Output) -> Vec<Value> {
    assert_eq!((output.status.code(), &*text(&output.stderr)), (Some(0), ""));
    text(&output.stdout).lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn positions(output: &Output) -> Vec<i64> {
    lines(output).iter().map(|line| line["position"].as_i64().unwrap()).collect()
}

/// What was printed for people; nothing else was, and all is well.
fn printed(output: &Output) -> String {
    assert_eq!((output.status.code(), &*text(&output.stderr)), (Some(0), ""));
    text(&output.stdout)
}

fn event(kind: &str, payload: &str) -> NewEvent {
    NewEvent::raw(kind, 1, Payload::from_json(payload.to_owned()).unwrap())
}

async fn append(store: &EventStore, stream: (&str, &str), events: impl Into<Vec<NewEvent>>) {
    let stream = StreamId::new(stream.0, stream.1).unwrap();
    let append = Append::to(stream, ExpectedVersion::Any, events.into());
    store.append(append).await.unwrap();
}

/// Six events of three applications, and three of others: one that the program does not know, one with
/// all that is recorded beside a payload, and one with a payload that the code writes otherwise.
async fn many() -> (Database, EventStore, Vec<Recorded>) {
    let (database, store) = recorded().await;
    append(&store, ("other", "a-b@c"), [event("happened", "{ \"n\" : [ 1.50,\n 2 ] }")]).await;
    let metadata = Metadata::new().correlation_id("order-7").actor("clerk-112").with("channel", 3);
    let declined = event("status_reached", r#"{"status":"declined","amount_requested":100}"#);
    let declined =
        declined.metadata(metadata).occurred_at("2011-10-01T08:00:00.5Z".parse().unwrap());
    append(&store, ("loan_application", "1"), [declined]).await;
    let longer = r#"{"status":"approved","amount_requested":100,"forgotten":true}"#;
    append(&store, ("loan_application", "2"), [event("status_reached", longer)]).await;
    let log = store.read(EventQuery::log()).try_collect().await.unwrap();
    (database, store, log)
}

#[tokio::test]
async fn the_last_events_come_newest_last() {
    let (database, store, log) = many().await;
    let output = tail(&database, &["--output", "json"]);
    assert_eq!(positions(&output), (1..=9).collect::<Vec<_>>());
    let eighth = &log[7];
    assert_eq!(
        lines(&output)[7],
        json!({
            "position": 8,
            "stream": "loan_application-1",
            "category": "loan_application",
            "key": "1",
            "version": 3,
            "id": eighth.id.to_string(),
            "type": "status_reached",
            "schema_version": 1,
            "recorded_at": eighth.recorded_at.to_rfc3339_opts(chrono::SecondsFormat::AutoSi, true),
            "occurred_at": "2011-10-01T08:00:00.500Z",
            "payload": {"status": "declined", "amount_requested": 100},
            "metadata": {"correlation_id": "order-7", "actor": "clerk-112", "custom": {"channel": 3}},
        })
    );
    // As it is stored, but for white space.
    let seventh = text(&output.stdout).lines().nth(6).unwrap().to_owned();
    assert!(seventh.contains(r#""payload":{"n":[1.50,2]},"metadata":{}"#), "{seventh}");

    let words: Vec<Vec<_>> = printed(&tail(&database, &["-n", "3"]))
        .lines()
        .map(|line| {
            line.split("  ")
                .map(str::trim)
                .filter(|word| !word.is_empty())
                .map(String::from)
                .collect()
        })
        .collect();
    assert_eq!(words.len(), 4);
    assert_eq!(words[0], ["POSITION", "RECORDED AT", "STREAM", "VERSION", "TYPE", "PAYLOAD"]);
    assert_eq!(words[1][2..], ["other-a-b@c", "1", "happened", r#"{"n":[1.50,2]}"#]);
    assert_eq!(words[3][0], "9");

    // More than the default; then the last twenty.
    for number in 0..20 {
        append(&store, ("other", "many"), [event("counted", &number.to_string())]).await;
    }
    assert_eq!(positions(&tail(&database, &["--output", "json"])), (10..=29).collect::<Vec<_>>());
    assert_eq!(tail(&database, &["--limit", "0"]).stdout, b"");
}

#[tokio::test]
async fn events_are_chosen_by_what_they_are_and_where_they_begin() {
    let (database, store, log) = many().await;
    let of = |args: &[&str]| positions(&tail(&database, &[args, &["--output", "json"]].concat()));
    assert_eq!(of(&["--category", "other"]), [7]);
    assert_eq!(of(&["--category", "other", "--category", "loan_application", "-n", "2"]), [8, 9]);
    assert_eq!(of(&["--type", "happened", "--type", "nothing"]), [7]);
    assert_eq!(of(&["--correlation", "order-7"]), [8]);
    assert_eq!(of(&["--correlation", "order-7", "--category", "other"]), [0; 0]);
    assert_eq!(of(&["--from", "7"]), [7, 8, 9]);
    assert_eq!(of(&["--from", "7", "--limit", "2"]), [8, 9]);
    assert_eq!(of(&["--from", "10"]), [0; 0]);
    let since = log[6].recorded_at.to_rfc3339();
    assert_eq!(of(&["--since", &since]), [7, 8, 9]);
    assert_eq!(of(&["--since", &since, "--category", "loan_application"]), [8, 9]);
    assert_eq!(of(&["--since", "2011-12-31"]).len(), 9);
    assert_fails_with(&tail(&database, &["--since", "2999-12-31"]), "is in the future");

    let stream = StreamId::new("other", "a-b@c").unwrap();
    store.archive_stream(&stream, ExpectedVersion::Any).await.unwrap();
    assert_eq!(of(&["--from", "7"]), [8, 9]);
    assert_eq!(of(&["--from", "7", "--include-archived"]), [7, 8, 9]);

    for nonsense in
        [&["--since", "yesterday"][..], &["--from", "0"], &["--from", "1", "--since", "2011-12-31"]]
    {
        let output = tail(&database, nonsense);
        assert_eq!((output.status.code(), output.stdout.len()), (Some(1), 0), "{nonsense:?}");
    }
}

#[tokio::test]
async fn who_has_seen_enough_ends_it_quietly() {
    let (database, store) = recorded().await;
    // More than a pipe holds.
    let long = format!("\"{}\"", "x".repeat(1000));
    for _ in 0..3 {
        append(&store, ("other", "long"), vec![event("said", &long); 100]).await;
    }
    for args in [
        &["events", "tail", "--from", "1", "--output", "json"][..],
        &["events", "tail", "-n", "300"],
    ] {
        let mut command = admin(args);
        command.env("DATABASE_URL", database.url());
        let mut running = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let mut first = String::new();
        BufReader::new(running.stdout.take().unwrap()).read_line(&mut first).unwrap();
        assert!(first.starts_with("{\"position\":1,") || first.starts_with("POSITION"), "{first}");
        // The reader is gone.
        let output = running.wait_with_output().unwrap();
        assert_eq!((output.status.code(), &*text(&output.stderr)), (Some(0), ""), "{args:?}");
    }
}

/// A command that goes on until it is stopped.
struct Following {
    running: Child,
    lines: std::io::Lines<BufReader<ChildStdout>>,
}

impl Following {
    fn start(database: &Database, args: &[&str]) -> Self {
        let mut command = admin(&[&["events", "tail", "--follow"], args].concat());
        command.env("DATABASE_URL", database.url());
        let mut running = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let lines = BufReader::new(running.stdout.take().unwrap()).lines();
        Self { running, lines }
    }

    /// The next line. It waits for it.
    fn line(&mut self) -> String {
        self.lines.next().unwrap().unwrap()
    }

    fn position(&mut self) -> i64 {
        serde_json::from_str::<Value>(&self.line()).unwrap()["position"].as_i64().unwrap()
    }

    /// What came of it, and the lines that it printed since.
    fn stop(self) -> (Option<i32>, String, Vec<String>) {
        let id = self.running.id().to_string();
        assert!(Command::new("kill").args(["-INT", &id]).status().unwrap().success());
        let rest = self.lines.map(Result::unwrap).collect();
        let output = self.running.wait_with_output().unwrap();
        (output.status.code(), text(&output.stderr), rest)
    }
}

#[tokio::test]
async fn following_goes_on_with_new_events_until_ctrl_c() {
    let (database, store) = recorded().await;
    let mut all = Following::start(&database, &["-n", "2", "--output", "json"]);
    let args = ["--category", "other", "--limit", "0"];
    let mut others = Following::start(&database, &args);
    assert_eq!((all.position(), all.position()), (5, 6));
    for number in 7..=9 {
        // Each is there before the next is appended.
        append(&store, ("loan_application", "9"), [event("status_reached", "{}")]).await;
        assert_eq!(all.position(), number);
    }
    // Both know where they begin, and listen from there.
    let listening = "select count(*) from pg_stat_activity
                     where datname = current_database() and query ilike 'listen %'";
    while database.count(listening).await < 2 {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    append(&store, ("other", "x"), [event("happened", "{}")]).await;
    assert_eq!(all.position(), 10);
    assert!(others.line().starts_with("POSITION"));
    assert!(others.line().trim_start().starts_with("10 "));
    assert_eq!(all.stop(), (Some(130), String::new(), vec![]));
    assert_eq!(others.stop(), (Some(130), String::new(), vec![]));
}

#[tokio::test]
async fn following_survives_connections_that_break() {
    let (database, store) = recorded().await;
    let mut following = Following::start(&database, &["--from", "6", "--output", "json"]);
    assert_eq!(following.position(), 6);
    drop(store);
    for number in [7, 8] {
        database
            .execute(
                "select pg_terminate_backend(pid) from pg_stat_activity
                 where datname = current_database() and pid <> pg_backend_pid()",
            )
            .await;
        let store = EventStore::connect(&database.url()).await.unwrap();
        append(&store, ("other", "x"), [event("happened", "{}")]).await;
        assert_eq!(following.position(), number);
    }
    let (code, _, rest) = following.stop();
    assert_eq!((code, rest), (Some(130), vec![]));
}

#[tokio::test]
async fn an_event_is_shown_whole_by_any_of_its_names() {
    let (database, _store, log) = many().await;
    let id = log[7].id.to_string();
    let shown = printed(&show(&database, &["8"]));
    let at = |time: chrono::DateTime<chrono::Utc>| {
        time.to_rfc3339_opts(chrono::SecondsFormat::AutoSi, true)
    };
    let fields = [
        ("stream", "loan_application-1"),
        ("version", "3"),
        ("position", "8"),
        ("type", "status_reached, version 1"),
        ("id", &id),
        ("recorded at", &at(log[7].recorded_at)),
        ("occurred at", "2011-10-01T08:00:00.500Z"),
        ("correlation id", "order-7"),
        ("actor", "clerk-112"),
        ("channel", "3"),
    ];
    let expected = fields.map(|(name, value)| format!(" {name:<14}   {value}"));
    let lines: Vec<_> = shown.lines().map(str::trim_end).collect();
    assert_eq!(lines[1..=10], expected);
    let rest = "\n\n{\n  \"status\": \"declined\",\n  \"amount_requested\": 100\n}\n\n\
                LoanApplicationEvent reads it as it is stored.\n";
    assert!(shown.ends_with(rest), "{shown}");
    for name in [&[&*id][..], &["loan_application-1@3"], &["loan_application-1"]] {
        assert_eq!(printed(&show(&database, name)), shown, "{name:?}");
    }
    for version in [&["--version", "3"][..], &[]] {
        let args = [&["--stream", "loan_application", "1"], version].concat();
        assert_eq!(printed(&show(&database, &args)), shown);
    }
    let odd = json(&show(&database, &["other-a-b@c@1", "--output", "json"]));
    assert_eq!((&odd["position"], &odd["read_as"]), (&json!(7), &json!([])));
    let unknown = printed(&show(&database, &["7"]));
    assert!(
        unknown.ends_with("has no aggregate of the category \"other\" to read it.\n"),
        "{unknown}"
    );
}

#[tokio::test]
async fn what_an_event_is_read_as_is_shown_where_it_differs() {
    let (database, store, _) = many().await;
    let shown = printed(&show(&database, &["9"]));
    let stored =
        "{\n  \"status\": \"approved\",\n  \"amount_requested\": 100,\n  \"forgotten\": true\n}";
    let read = "{\n  \"status\": \"approved\",\n  \"amount_requested\": 100\n}";
    let rest = format!(
        "\n\n{stored}\n\nLoanApplicationEvent reads it as status_reached, version 1:\n\n{read}\n"
    );
    assert!(shown.ends_with(&rest), "{shown}");
    let document = json(&show(&database, &["9", "--output", "json"]));
    let read = json!({"status": "approved", "amount_requested": 100});
    assert_eq!(document["payload"]["forgotten"], true);
    assert_eq!(
        document["read_as"],
        json!([{
            "by": "LoanApplicationEvent",
            "same": false,
            "events": [{"type": "status_reached", "schema_version": 1, "payload": read}],
            "error": null,
        }])
    );

    append(&store, ("loan_application", "3"), [event("status_reached", "{}")]).await;
    let output = show(&database, &["10"]);
    assert_eq!((output.status.code(), &*text(&output.stderr)), (Some(2), ""));
    let why = "\n\n{}\n\nLoanApplicationEvent cannot read it: cannot decode event 3 of stream \
               loan_application-3, type \"status_reached\" version 1: ";
    assert!(text(&output.stdout).contains(why), "{output:?}");
    let output = show(&database, &["10", "--output", "json"]);
    assert_eq!(output.status.code(), Some(2));
    let reading = &json(&output)["read_as"][0];
    assert!(reading["error"].as_str().unwrap().starts_with("cannot decode"), "{reading}");
    assert_eq!((&reading["same"], &reading["events"]), (&json!(false), &Value::Null));
}

#[tokio::test]
async fn an_event_that_is_not_there_is_said_to_be_so() {
    let (database, store, _) = many().await;
    let fails = |args: &[&str], why: &str| assert_fails_with(&show(&database, args), why);
    fails(&["77"], "there is no event at position 77: the log ends at 9");
    let nobody = "0192f0c1-2222-7333-8444-555566667777";
    fails(&[nobody], &format!("there is no event with the id {nobody} up to position 9"));
    fails(&["loan_application-1@4"], "stream loan_application-1 has no event 4; its last is 3");
    fails(&["loan_application-77"], "there is no stream loan_application-77");
    fails(&["--stream", "Loan", "1"], "a category is lower-case letters");
    // An archived one is there, a deleted one in the log.
    let (archived, deleted) = ("loan_application-1", "loan_application-2");
    let stream = |name: &str| StreamId::new("loan_application", &name[17..]).unwrap();
    store.archive_stream(&stream(archived), ExpectedVersion::Any).await.unwrap();
    store.delete_stream(&stream(deleted), ExpectedVersion::Any).await.unwrap();
    for name in ["loan_application-1@3", "8", "9"] {
        assert_eq!(show(&database, &[name]).status.code(), Some(0), "{name}");
    }
    fails(&["loan_application-2@1"], "stream loan_application-2 is deleted");
    let output = show(&database, &["nonsense"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stderr).contains("a position like 1234"), "{output:?}");
}

#[tokio::test]
async fn a_state_is_printed_as_it_is_and_as_it_was() {
    let (database, store, log) = many().await;
    let at =
        |index: usize| log[index].recorded_at.to_rfc3339_opts(chrono::SecondsFormat::AutoSi, true);
    let dossier = |status: &str| {
        json!({
            "dossier": {"amount_requested": 100, "status": status, "offers_created": 0, "work": {}},
        })
    };
    let of = |args: &[&str]| {
        let args = [&["loan_application", "1", "--output", "json"], args].concat();
        json(&state(&database, &args))
    };
    assert_eq!(
        of(&[]),
        json!({
            "stream": "loan_application-1",
            "category": "loan_application",
            "key": "1",
            "aggregate": "LoanApplication",
            "as_of": null,
            "version": 3,
            "position": 8,
            "recorded_at": at(7),
            "state": dossier("declined"),
            "debug": null,
        })
    );
    for (as_of, version, status, shown) in [
        ("v2", 2, "submitted", json!({"version": 2})),
        ("7", 2, "submitted", json!({"position": 7})),
        (&*at(6), 2, "submitted", json!({"time": at(6)})),
        (&*at(7), 3, "declined", json!({"time": at(7)})),
    ] {
        let document = of(&["--as-of", as_of]);
        assert_eq!((&document["version"], &document["as_of"]), (&json!(version), &shown));
        assert_eq!(document["state"], dossier(status));
    }
    let words = printed(&state(&database, &["loan_application", "1", "--as-of", &at(6)]));
    let expected = format!(
        "loan_application-1 as of {}: version 2, position 2, recorded at {}\n\n{}\n",
        at(6),
        at(1),
        serde_json::to_string_pretty(&dossier("submitted")).unwrap(),
    );
    // The order of fields is the state's own.
    let sorted = |text: &str| {
        let (first, state) = text.split_once("\n\n").unwrap();
        (first.to_owned(), serde_json::from_str::<Value>(state).unwrap())
    };
    assert_eq!(sorted(&words), sorted(&expected));
    assert!(words.contains("\n  \"dossier\": {\n    \"amount_requested\": 100,\n"), "{words}");

    let stream = StreamId::new("loan_application", 1).unwrap();
    store.archive_stream(&stream, ExpectedVersion::Any).await.unwrap();
    assert_eq!(of(&[])["version"], 3);
    let then = state(&database, &["loan_application", "1", "--as-of", "v2"]);
    assert_fails_with(&then, "is archived");
}

#[tokio::test]
async fn a_state_that_is_not_there_is_said_to_be_so() {
    let (database, store, log) = many().await;
    let fails = |args: &[&str], why: &str| assert_fails_with(&state(&database, args), why);
    let known = "this program has no aggregate of the category \"other\", but of loan_application";
    fails(&["other", "a-b@c"], known);
    fails(&["loan_application", "77"], "there is no stream loan_application-77");
    let of = |as_of| ["loan_application", "1", "--as-of", as_of];
    let first = log[0].recorded_at.to_rfc3339_opts(chrono::SecondsFormat::AutoSi, true);
    let before = format!(
        "stream loan_application-1 had no events as of 2011-12-31T00:00:00Z; its first was recorded \
         at {first}, at position 1"
    );
    fails(&of("2011-12-31"), &before);
    fails(&of("v9"), "stream loan_application-1 has no event 9; its last is 3");
    fails(&of("99"), "cannot answer as of position 99: the log ends at 9");
    fails(&of("2999-12-31"), "is in the future");
    let other = ["loan_application", "1", "--aggregate", "Loan"];
    fails(&other, "no aggregate of the category \"loan_application\" is \"Loan\": LoanApplication");
    let stream = StreamId::new("loan_application", 1).unwrap();
    store.delete_stream(&stream, ExpectedVersion::Any).await.unwrap();
    fails(&["loan_application", "1"], "stream loan_application-1 is deleted");
}
