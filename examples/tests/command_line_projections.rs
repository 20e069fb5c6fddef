//! The commands that look after projections and read models, as their users run them.

#![allow(clippy::unwrap_used)] // A helper that fails fails its test.

mod support;

// What the program has, so that a worker of the test does its part.
#[allow(dead_code)]
#[path = "../examples/loans/model.rs"]
mod model;
#[allow(dead_code)]
#[path = "../examples/loans/read_model.rs"]
mod read_model;

use std::{
    io::{BufRead, BufReader},
    process::{Child, Command, Output, Stdio},
    time::{Duration, Instant},
};

use annals::{
    Append, EventStore, ExpectedVersion, NewEvent, Payload, Position, QueryReadModels, StreamId,
    Worker, leader::Election,
};
use read_model::LoanApplications;
use serde_json::{Value, json};
use support::{
    Database,
    admin::{admin, assert_fails_with, json, recorded, text},
};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

const NAME: &str = "loan_applications";

/// `NAME` stands for the read model.
fn run(database: &Database, args: &str) -> Output {
    let args: Vec<_> = args.split(' ').map(|arg| if arg == "NAME" { NAME } else { arg }).collect();
    admin(&args).env("DATABASE_URL", database.url()).output().unwrap()
}

/// What was printed for people; nothing else was, and all is well.
fn printed(output: &Output) -> String {
    assert_eq!((output.status.code(), &*text(&output.stderr)), (Some(0), ""));
    text(&output.stdout)
}

/// What was printed for programs, with the exit code.
fn document(database: &Database, args: &str) -> (i32, Value) {
    let output = run(database, &format!("{args} --output json"));
    (output.status.code().unwrap(), json(&output))
}

struct Running {
    stop: CancellationToken,
    worker: JoinHandle<Result<(), annals::ProjectionError>>,
}

impl Running {
    fn start(store: &EventStore) -> Self {
        let stop = CancellationToken::new();
        let worker = Worker::new(store).projection::<LoanApplications>();
        let worker = tokio::spawn(worker.run_until(stop.clone()));
        Self { stop, worker }
    }

    async fn stop(self) {
        self.stop.cancel();
        self.worker.await.unwrap().unwrap();
    }
}

async fn reached(store: &EventStore, position: i64) {
    let query = store.query::<LoanApplications>();
    query.wait_for(Position::new(position), Duration::from_secs(20)).await.unwrap();
}

/// Three applications, each of two events, and their read model.
async fn projected() -> (Database, EventStore) {
    let (database, store) = recorded().await;
    let worker = Running::start(&store);
    reached(&store, 6).await;
    worker.stop().await;
    (database, store)
}

async fn append(store: &EventStore, application: u32, payload: &str) -> Position {
    let stream = StreamId::new("loan_application", application).unwrap();
    let payload = Payload::from_json(payload.to_owned()).unwrap();
    let event = NewEvent::raw("status_reached", 1, payload);
    let append = Append::to(stream, ExpectedVersion::Any, [event]);
    store.append(append).await.unwrap();
    store.safe_position().await.unwrap()
}

const ACCEPTED: &str = r#"{"status":"accepted","amount_requested":100}"#;

async fn eventually(what: &str, mut is_so: impl AsyncFnMut() -> bool) {
    for _ in 0..200 {
        if is_so().await {
            return;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    panic!("not within 20 seconds: {what}");
}

fn interrupt(process: &Child) {
    let stop = Command::new("kill").args(["-INT", &process.id().to_string()]).status().unwrap();
    assert!(stop.success());
}

fn start(database: &Database, args: &[&str]) -> Child {
    admin(args)
        .env("DATABASE_URL", database.url())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn status_says_how_far_projections_are_and_who_runs_them() {
    let (database, store) = recorded().await;
    let (code, status) = document(&database, "status");
    let of = |status: &Value, names: &[&str]| -> Vec<Value> {
        names.iter().map(|name| status["projections"][0][name].clone()).collect()
    };
    assert_eq!((code, &status["well"], &status["position"]), (2, &json!(false), &json!(6)));
    let begun = of(&status, &["name", "state", "position", "program_version", "slices"]);
    assert_eq!(json!(begun), json!([NAME, "not_begun", null, 1, []]));

    let worker = Running::start(&store);
    reached(&store, 6).await;
    // A publisher, say.
    database.execute("insert into annals.checkpoints (name, position) values ('other', 2)").await;
    let (code, status) = document(&database, "status");
    assert_eq!((code, &status["well"]), (0, &json!(true)), "{status}");
    let fields = [
        "state",
        "reason",
        "position",
        "behind",
        "waiting_seconds",
        "events_per_second",
        "parked",
        "version",
        "history_from",
    ];
    let expected = json!(["running", null, 6, 0, null, 0.0, 0, 1, 0]);
    assert_eq!(json!(of(&status, &fields)), expected);
    let slices = status["projections"][0]["slices"].as_array().unwrap();
    assert_eq!(slices.len(), 1);
    assert_eq!(slices[0]["position"], 6);
    // Where the worker is: in this process.
    let owner = slices[0]["owner"].as_str().unwrap();
    assert!(owner.contains(&format!(":{}:", std::process::id())), "{status}");
    let leadership = Election::new(&store, "nightly-report").unwrap().campaign().await.unwrap();
    let other = json!([{"name": "other", "position": 2, "behind": 4, "owner": null}]);
    assert_eq!(status["readers"], other);
    let (_, led) = document(&database, "status");
    assert_eq!(led["leaders"][0]["election"], "nightly-report", "{led}");
    assert_eq!(led["leaders"][0]["epoch"], 1, "{led}");
    let words = printed(&run(&database, "status"));
    assert!(words.contains("\n nightly-report       1   "), "{words}");
    leadership.resign().await.unwrap();
    assert!(
        words.contains("\n loan_applications   read model   running          6        0"),
        "{words}"
    );
    assert!(words.contains("\n other                 2        4   -"), "{words}");
    assert!(words.ends_with("\nAll is well.\n"), "{words}");

    // While it is paused, it falls behind.
    let pausing = admin(&["pause", NAME, "--reason", "a new index"])
        .env("DATABASE_URL", database.url())
        .output()
        .unwrap();
    assert_eq!(
        printed(&pausing),
        "loan_applications is paused; `resume loan_applications` lets it go on.\n"
    );
    // It finishes what it is at.
    tokio::time::sleep(Duration::from_secs(2)).await;
    append(&store, 1, ACCEPTED).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    let (code, status) = document(&database, "status");
    let fields = ["state", "reason", "position", "behind"];
    assert_eq!((code, json!(of(&status, &fields))), (2, json!(["paused", "a new index", 6, 1])));
    assert!(of(&status, &["waiting_seconds"])[0].as_f64().unwrap() >= 1.0, "{status}");
    let output = run(&database, "status");
    assert_eq!(output.status.code(), Some(2));
    let words = text(&output.stdout);
    assert!(words.ends_with("\n- loan_applications is paused: a new index\n"), "{words}");
    let resumed = document(&database, "resume NAME");
    let document_of = json!({
        "projection": NAME, "paused": null, "paused_before": "a new index", "broken_before": null,
    });
    assert_eq!(resumed, (0, document_of));
    reached(&store, 7).await;
    assert_eq!(printed(&run(&database, "resume NAME")), "loan_applications was not paused.\n");

    // As a worker does that finds its target down.
    let open = "update annals.projections set broken = 'mails are down',
        broken_until = '2099-01-01 00:00Z' where name = 'projection:loan_applications'";
    let opened = async || {
        database.execute(open).await;
        document(&database, "status")
    };
    let (code, status) = opened().await;
    let fields = ["state", "reason", "retried_at"];
    let expected = json!(["broken", "mails are down", "2099-01-01T00:00:00Z"]);
    assert_eq!((code, json!(of(&status, &fields))), (2, expected));
    let words = text(&run(&database, "status").stdout);
    let complaint =
        "\n- loan_applications: its circuit is open until 2099-01-01T00:00:00Z: mails are down\n";
    assert!(words.ends_with(complaint), "{words}");
    let resumed = document(&database, "resume NAME");
    let document_of = json!({
        "projection": NAME, "paused": null, "paused_before": null, "broken_before": "mails are down",
    });
    assert_eq!(resumed, (0, document_of));
    assert_eq!(document(&database, "status").0, 0, "it is closed");

    worker.stop().await;
    let output = run(&database, "status");
    assert_eq!(output.status.code(), Some(2));
    assert!(text(&output.stdout).ends_with("\n- loan_applications has no worker\n"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watch_looks_until_it_is_stopped() {
    let (database, store) = projected().await;
    let started = Instant::now();
    let mut watch = start(&database, &["status", "--watch", "--output", "json"]);
    let mut lines = BufReader::new(watch.stdout.take().unwrap()).lines();
    let mut next = || -> Value { serde_json::from_str(&lines.next().unwrap().unwrap()).unwrap() };
    assert_eq!(next()["projections"][0]["state"], "stopped");
    let worker = Running::start(&store);
    for application in 0..50 {
        append(&store, application, ACCEPTED).await;
    }
    let mut rates = 0.0;
    let last = loop {
        let look = next();
        rates += look["projections"][0]["events_per_second"].as_f64().unwrap();
        if look["projections"][0]["position"] == 56 {
            break look;
        }
    };
    assert_eq!(last["projections"][0]["state"], "running");
    // Those of all looks together: there is a second between two, or more, but no more than all the time.
    let most = started.elapsed().as_secs_f64();
    assert!(rates <= 50.0 && rates * most >= 50.0, "{rates} of {most} s");
    interrupt(&watch);
    assert_eq!(watch.wait().unwrap().code(), Some(130));
    let mut errors = String::new();
    std::io::Read::read_to_string(&mut watch.stderr.unwrap(), &mut errors).unwrap();
    assert_eq!(errors, "");
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_parked_is_listed_tried_again_and_left_out() {
    let (database, store) = projected().await;
    assert_eq!(printed(&run(&database, "parked list")), "Nothing is parked.\n");
    append(&store, 1, r#"{"status":"lost"}"#).await;
    append(&store, 1, ACCEPTED).await;
    append(&store, 2, ACCEPTED).await;
    let worker = Running::start(&store);
    reached(&store, 9).await;

    let (code, listed) = document(&database, "parked list NAME");
    let parked = &listed["parked"][0];
    let fields = ["projection", "stream", "category", "key", "version", "position", "asked"];
    let fields = fields.map(|name| parked[name].clone());
    let expected = json!([NAME, "loan_application-1", "loan_application", "1", 3, 7, false]);
    assert_eq!((code, json!(fields)), (0, expected));
    assert_eq!(listed["parked"].as_array().unwrap().len(), 1);
    assert!(parked["reason"].as_str().unwrap().len() > 10, "{parked}");
    let words = printed(&run(&database, "parked list"));
    let words: Vec<_> = words.lines().collect();
    let beginning =
        "1. loan_applications leaves out loan_application-1 from version 3 on, position 7, since ";
    assert!(words[0].starts_with(beginning), "{words:?}");
    assert_eq!((words.len(), words[1].starts_with("   ")), (2, true), "{words:?}");
    let output = run(&database, "status");
    assert_eq!(output.status.code(), Some(2));
    let hint = "- loan_applications: 1 stream is parked; see `parked list loan_applications`\n";
    assert!(text(&output.stdout).ends_with(hint), "{output:?}");

    // Tried again, it fails again.
    let since = parked["parked_at"].clone();
    let tried = document(&database, "parked retry NAME --stream loan_application 1");
    assert_eq!(tried, (0, json!({"projection": NAME, "retried": 1})));
    eventually("the worker has tried it", async || {
        let parked = document(&database, "parked list").1["parked"][0].clone();
        parked["asked"] == false
            && (parked["attempts"].as_i64() > Some(1) || parked["parked_at"] != since)
    })
    .await;
    let words = printed(&run(&database, "parked retry NAME --all"));
    assert_eq!(words, "loan_applications tries 1 stream again.\n");
    let position = document(&database, "history NAME 1").1["versions"].clone();
    assert_eq!(position.as_array().unwrap().len(), 2);

    // It is refused while the worker is yet to try again; and once it was asked for, it comes.
    let mut asked = false;
    eventually("it is left out", async || {
        asked = asked
            || run(&database, "parked discard NAME --stream loan_application 1").status.success();
        asked && document(&database, "parked list").1 == json!({"parked": []})
    })
    .await;
    let row = store.query::<LoanApplications>().get(&"1".to_owned()).await.unwrap().unwrap();
    assert_eq!(row.status, Some(model::Status::Accepted));
    let again = run(&database, "parked discard NAME --stream loan_application 1");
    assert_fails_with(&again, "stream loan_application-1 is not parked in loan_applications");
    let again = run(&database, "parked retry NAME --stream loan_application 1");
    assert_fails_with(&again, "stream loan_application-1 is not parked in loan_applications");
    let words = printed(&run(&database, "parked retry NAME --all"));
    assert_eq!(words, "Nothing is parked in loan_applications.\n");
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_row_has_a_history_and_two_moments_differ() {
    let (database, store) = recorded().await;
    append(&store, 2, ACCEPTED).await;
    append(&store, 4, ACCEPTED).await;
    let worker = Running::start(&store);
    reached(&store, 8).await;
    worker.stop().await;

    let (code, history) = document(&database, "history NAME 2");
    assert_eq!((code, &history["projection"], &history["position"]), (0, &json!(NAME), &json!(8)));
    let versions: Vec<_> = (history["versions"].as_array().unwrap().iter())
        .map(|version| json!([version["from"], version["to"], version["row"]["status"]]))
        .collect();
    let expected = json!([[3, 4, "submitted"], [4, 7, "submitted"], [7, null, "accepted"]]);
    assert_eq!(json!(versions), expected);
    let last = &history["versions"][2];
    let shown = document(&database, "events show 7").1["recorded_at"].clone();
    assert_eq!((&last["from_recorded_at"], &last["to_recorded_at"]), (&shown, &Value::Null));
    // In the order of the columns, as they are in the table.
    let first = printed(&run(&database, "history NAME 2 --output json"));
    let row = first.split("\"row\": ").nth(3).unwrap();
    let names: Vec<_> = (row.lines().filter_map(|line| line.trim().split_once("\": ")))
        .map(|(name, _)| name.trim_start_matches('"'))
        .collect();
    let columns = [
        "application",
        "amount_requested",
        "status",
        "offers_created",
        "open_work_items",
        "last_activity_at",
        "work",
    ];
    assert_eq!(names, columns);

    let words = printed(&run(&database, "history NAME 2"));
    let lines: Vec<_> = words.lines().collect();
    assert_eq!(lines[0], "loan_applications 2: 3 versions, up to position 8");
    assert_eq!(lines[2], format!("position 3, {}", time_of(&history, 0)));
    assert_eq!(lines[3], "    amount_requested  100");
    assert_eq!(lines[4], r#"    status            "submitted""#);
    let last: Vec<_> = lines.iter().rev().take(3).collect();
    assert!(last[0].starts_with("    last_activity_at  \""), "{words}");
    assert_eq!(*last[1], r#"    status            "submitted" → "accepted""#);
    assert_eq!(*last[2], format!("position 7, {}", time_of(&history, 2)));

    // From a position on, by default up to now; by time; of one row; both ways.
    let differing = |args: &str| -> Vec<Value> {
        let output = run(&database, &format!("diff NAME {args} --output json"));
        printed(&output).lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    };
    let short = |lines: &[Value]| -> Value {
        let short = lines.iter().map(|line| {
            json!([
                line["change"],
                line["key"]["application"],
                line["from"],
                line["to"],
                line["before"]["status"],
                line["after"]["status"],
            ])
        });
        short.collect()
    };
    let two = json!(["changed", "2", 6, 8, "submitted", "accepted"]);
    let four = json!(["added", "4", 6, 8, null, "accepted"]);
    let both = json!([two, four]);
    assert_eq!(short(&differing("--from 6")), both);
    let time = time_of(&history, 2);
    let since = format!("2 --from 6 --to {time}");
    let of_two = json!([["changed", "2", 6, 7, "submitted", "accepted"]]);
    assert_eq!(short(&differing(&since)), of_two);
    assert_eq!(
        short(&differing("4 --from 8 --to 7")),
        json!([["removed", "4", 8, 7, "accepted", null]])
    );
    assert_eq!(short(&differing("--from 8 --to 7"))[0][0], "removed");
    assert_eq!(differing("3 --from 6"), Vec::<Value>::new());
    assert_eq!(differing("--from 0 --to 6").len(), 3);
    let words = printed(&run(&database, "diff NAME --from 6 --to 8"));
    assert!(words.starts_with("changed 2\n    status            \"submitted\" → \"accepted\"\n"));
    assert!(words.contains("\nadded 4\n    amount_requested  100\n"), "{words}");
    let end = "\n1 added, 1 changed, 0 removed between the positions 6 and 8.\n";
    assert!(words.ends_with(end), "{words}");
    let words = printed(&run(&database, "diff NAME 3 --from 6"));
    assert_eq!(words, "Nothing differs between the positions 6 and 8.\n");

    let fails = |args: &str, why: &str| assert_fails_with(&run(&database, args), why);
    fails("history NAME 9", "loan_applications never had a row 9");
    fails("history NAME -- -9", "loan_applications never had a row -9");
    fails("history NAME 1 2", "a key of loan_applications is application, not 2 values");
    fails("diff NAME --from 99", "has come to position 8, not to 99 yet. Is its worker running?");
    fails("diff NAME 2 --from 99", "has come to position 8, not to 99 yet");
    fails("diff NAME --from 2999-01-01", "in the future");
    database.execute("update annals.projections set kept_from = 5").await;
    fails("diff NAME --from 4 --to 6", "keeps its history from position 5 on");
}

fn time_of(history: &Value, version: usize) -> String {
    history["versions"][version]["from_recorded_at"].as_str().unwrap().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rebuild_is_compared_swapped_rolled_back_and_discarded() {
    let (database, _store) = projected().await;
    let amount = async || {
        let sql = "select amount_requested from loan_applications where application = '2'";
        database.count(sql).await
    };
    // As if the code had been wrong once.
    database
        .execute("update loan_applications set amount_requested = 7 where application = '2'")
        .await;

    for swap in ["", " --swap"] {
        let (code, compared) = document(&database, &format!("rebuild NAME --compare{swap}"));
        assert_eq!((code, &compared["swapped"]), (2, &json!(false)), "{compared}");
        let comparison = &compared["comparison"];
        let fields = ["position", "same", "live_rows", "rebuilt_rows", "different"];
        let fields = fields.map(|name| comparison[name].clone());
        assert_eq!(json!(fields), json!([6, false, 3, 3, 1]));
        let difference = &comparison["differences"][0];
        assert_eq!(difference["key"], json!({"application": "2"}));
        let amounts = ["live", "rebuilt"].map(|side| difference[side]["amount_requested"].clone());
        assert_eq!(json!(amounts), json!([7, 100]));
        assert_eq!(amount().await, 7);
    }
    let output = run(&database, "rebuild NAME --compare");
    assert_eq!((output.status.code(), &*text(&output.stderr)), (Some(2), ""));
    let words = text(&output.stdout);
    let expected = "\nCompared as of position 6: 3 rows in use, 3 new ones, of which 1 differs:\n\n\
                    2\n    amount_requested  7 → 100\n\nIt is not in use; ";
    assert!(words.contains(expected), "{words}");

    let words = printed(&run(&database, "rebuild NAME --shards 2"));
    assert!(words.starts_with("Built loan_applications up to position 6: "), "{words}");
    assert!(words.contains("\nIt is in use now; "), "{words}");
    assert_eq!(amount().await, 100);
    printed(&run(&database, "rebuild NAME --rollback"));
    assert_eq!(amount().await, 7);
    let rolled_back = document(&database, "rebuild NAME --rollback");
    assert_eq!((rolled_back.0, &rolled_back.1["rolled_back"]), (0, &json!(true)));
    assert_eq!(amount().await, 100);
    let same = document(&database, "rebuild NAME --compare --swap");
    assert_eq!(
        (same.0, &same.1["swapped"], &same.1["built"]["events"]),
        (0, &json!(true), &json!(6))
    );
    printed(&run(&database, "rebuild NAME --discard"));
    let nothing = run(&database, "rebuild NAME --rollback");
    assert_fails_with(&nothing, "there are no tables of a rebuild of read model");
    assert_eq!(amount().await, 100);
    assert_eq!(document(&database, "history NAME 2").1["versions"].as_array().unwrap().len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rebuild_that_is_stopped_goes_on_later() {
    let (database, _store) = projected().await;
    // Six events take six seconds.
    let running = start(&database, &["rebuild", NAME, "--events-per-second", "1"]);
    let begun = "select count(*) from annals.projections where name = 'rebuild:loan_applications'";
    eventually("it has begun", async || database.count(begun).await == 1).await;
    interrupt(&running);
    let output = running.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(130));
    let words = "stopped; loan_applications is as it was, and what was built stays: the same command \
                 goes on with it, `rebuild loan_applications --discard` drops it\n";
    assert_eq!((&*text(&output.stderr), &*text(&output.stdout)), (words, ""));
    assert_eq!(database.count(begun).await, 1);
    assert_eq!(database.count("select count(*) from loan_applications").await, 3);
    // Its lease lasts a while.
    let (code, rebuilt) = document(&database, "rebuild NAME");
    assert_eq!(
        (code, &rebuilt["built"]["position"], &rebuilt["swapped"]),
        (0, &json!(6), &json!(true))
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reset_is_meant() {
    let (database, store) = projected().await;
    let refused = run(&database, "reset NAME");
    assert_fails_with(&refused, "public.loan_applications stays as it is: say --yes to drop it");
    assert_eq!(database.count("select count(*) from loan_applications").await, 3);
    let reset = document(&database, "reset NAME --yes");
    assert_eq!(reset, (0, json!({"projection": NAME, "reset": true})));
    let there = "select count(*) from pg_class where relname like 'loan_applications%'";
    assert_eq!(database.count(there).await, 0);
    let pausing = run(&database, "pause NAME --reason why");
    assert_fails_with(&pausing, "no worker has begun with the projection \"loan_applications\"");
    assert_fails_with(&run(&database, "history NAME 1"), "has not been built yet");
    assert_fails_with(&run(&database, "rebuild NAME --compare"), "no worker has begun");
    let worker = Running::start(&store);
    reached(&store, 6).await;
    worker.stop().await;
    assert_eq!(database.count("select count(*) from loan_applications").await, 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn ddl_is_what_a_worker_would_run() {
    let printed_ddl = printed(&admin(&["ddl", NAME]).output().unwrap());
    let elsewhere = printed(&admin(&["ddl", NAME, "--schema", "lending"]).output().unwrap());
    assert!(elsewhere.contains("\"lending\".check_moment(") && !elsewhere.contains("\"annals\""));
    let (database, store) = recorded().await;
    database.execute(&printed_ddl).await;
    let tables = "select count(*) from pg_class where relname in \
                  ('loan_applications', 'loan_applications_history', 'loan_applications_history_node')";
    assert_eq!(database.count(tables).await, 3);
    // A worker finds nothing to add, and nothing wrong.
    let worker = Running::start(&store);
    reached(&store, 6).await;
    worker.stop().await;
    let sql = "select count(*) from loan_applications_as_of(6)";
    assert_eq!(database.count(sql).await, 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_name_that_nobody_bears_is_refused_with_those_that_are() {
    let (database, _store) = projected().await;
    for command in
        ["history lost 1", "diff lost --from 1", "rebuild lost", "reset lost --yes", "ddl lost"]
    {
        let why = "this program has no read model \"lost\"; it has loan_applications";
        assert_fails_with(&run(&database, command), why);
    }
    for command in [
        "pause lost --reason why",
        "resume lost",
        "parked list lost",
        "parked retry lost --all",
        "parked discard lost --stream loan_application 1",
    ] {
        let why = "there is no projection \"lost\"; there are loan_applications";
        assert_fails_with(&run(&database, command), why);
    }
    for nonsense in [
        "pause NAME",
        "parked retry NAME",
        "parked retry NAME --all --stream a b",
        "parked discard NAME",
        "rebuild NAME --rollback --swap",
        "rebuild NAME --discard --shards 2",
        "diff NAME",
        "history NAME",
        "rebuild NAME --events-per-second 0",
    ] {
        let output = run(&database, nonsense);
        assert_eq!(output.status.code(), Some(1), "{nonsense}: {output:?}");
        assert!(output.stdout.is_empty() && text(&output.stderr).starts_with("error: "));
    }
}
