//! The command line as its users run it: the real binary, its output and its exit codes.

#![allow(clippy::unwrap_used)] // A helper that fails fails its test.

mod support;

use std::process::{Command, Output, Stdio};

use annals::{EventStore, StreamId};
use serde_json::json;
use support::{
    Database,
    admin::{admin, assert_fails_with, json, recorded, text},
};

const LOCK: &str = "examples/loans/events.lock";

fn verify(database: &Database, args: &[&str]) -> Output {
    admin(&[&["verify"], args].concat()).env("DATABASE_URL", database.url()).output().unwrap()
}

/// Past the guards, as only the owner of the tables can.
async fn damage(database: &Database, sql: &str) {
    let guarded = "alter table annals.events {} trigger events_are_kept;
        alter table annals.events {} trigger events_are_immutable;";
    let (off, on) = (guarded.replace("{}", "disable"), guarded.replace("{}", "enable always"));
    database.execute(&format!("{off} {sql}; {on}")).await;
}

#[tokio::test]
async fn a_sound_store_is_a_success() {
    let (database, _store) = recorded().await;
    let output = verify(&database, &[]);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let printed = text(&output.stdout);
    assert!(
        printed.starts_with("The store in the schema \"annals\", up to position 6:\n"),
        "{printed}"
    );
    assert!(printed.ends_with("\nAll is well.\n"), "{printed}");
    // No bar where there is no terminal.
    assert_eq!(text(&output.stderr), "");

    let output = verify(&database, &["--output", "json"]);
    assert_eq!(output.status.code(), Some(0));
    let document = json(&output);
    assert_eq!(
        (&document["sound"], &document["up_to"], &document["schema"]),
        (&json!(true), &json!(6), &json!("annals"))
    );
    let checks: Vec<_> = (document["checks"].as_array().unwrap().iter())
        .map(|check| (check["check"].as_str().unwrap(), check["findings"].as_u64().unwrap()))
        .collect();
    let names = [
        "schema",
        "registry",
        "log",
        "payloads",
        "streams",
        "idempotency_keys",
        "snapshots",
        "states",
    ];
    assert_eq!(checks, names.map(|name| (name, 0)));
    assert_eq!(document["checks"][2]["looked_at"], 6);
    for list in ["findings", "unchecked", "in_flight"] {
        assert_eq!(document[list], json!([]), "{list}");
    }
}

#[tokio::test]
async fn findings_are_named_and_have_a_code_of_their_own() {
    let (database, _store) = recorded().await;
    damage(&database, "delete from annals.events where position = 3").await;
    damage(&database, "update annals.events set payload = '{}' where position = 5").await;

    let output = verify(&database, &["--output", "json"]);
    assert_eq!(output.status.code(), Some(2), "{output:?}");
    let document = json(&output);
    assert_eq!(document["sound"], false);
    let named: Vec<_> = (document["findings"].as_array().unwrap().iter())
        .map(|finding| {
            for part in ["message", "advice"] {
                assert!(finding[part].as_str().unwrap().len() > 20, "{finding}");
            }
            let named = ["kind", "check", "stream", "version", "position"];
            named.map(|name| finding[name].clone())
        })
        .collect();
    let three = json!(["undecodable", "payloads", "loan_application-3", 1, 5]);
    let two = json!(["version_gap", "streams", "loan_application-2", 1, 4]);
    assert_eq!(json!(named), json!([three, two]));

    let output = verify(&database, &[]);
    assert_eq!(output.status.code(), Some(2));
    let printed = text(&output.stdout);
    let gap = "\n2. stream loan_application-2 has no event 1; the next is 2, at position 4\n   Events are lost.";
    assert!(printed.contains(gap), "{printed}");
    assert!(printed.ends_with("\n2 findings.\n"), "{printed}");

    let output = verify(&database, &["--max-findings", "1"]);
    assert_eq!(output.status.code(), Some(2));
    let printed = text(&output.stdout);
    assert!(printed.contains("... and 1 more") && printed.ends_with("2 findings.\n"), "{printed}");
}

#[tokio::test]
async fn what_was_not_looked_at_is_said() {
    let (database, store) = recorded().await;
    let stream = StreamId::new("other", 1).unwrap();
    let payload = annals::Payload::from_json("{}").unwrap();
    let event = annals::NewEvent::raw("happened", 1, payload);
    let any = annals::ExpectedVersion::Any;
    store.append(annals::Append::to(stream, any, [event])).await.unwrap();
    let output = verify(&database, &[]);
    assert_eq!(output.status.code(), Some(0));
    let printed = text(&output.stdout);
    let unchecked = "Not looked at:\n- the payloads of 1 event of the category \"other\"";
    assert!(printed.contains(unchecked), "{printed}");
    assert!(printed.ends_with("\nAll is well with what was looked at.\n"), "{printed}");
}

#[tokio::test]
async fn a_store_that_cannot_be_checked_is_said_in_one_line() {
    let database = Database::create().await;
    assert_fails_with(&admin(&["verify"]).output().unwrap(), "DATABASE_URL is not set");
    let at = |url: &str| admin(&["verify", "--database-url", url]).output().unwrap();
    assert_fails_with(&at("no url"), "the database URL is not valid");
    let refused = at("postgres://annals:secret@127.0.0.1:1/annals");
    assert_fails_with(&refused, "127.0.0.1:1/annals");
    assert!(!text(&refused.stderr).contains("secret"));
    // Who looks at a store creates none.
    for args in [&[][..], &["--schema", "elsewhere"]] {
        assert_fails_with(&verify(&database, args), "there is no store in the schema");
    }
    let schemas = "select count(*) from pg_namespace where nspname in ('annals', 'elsewhere')";
    assert_eq!(database.count(schemas).await, 0);
    drop(EventStore::connect(&database.url()).await.unwrap());
    assert_fails_with(&verify(&database, &["--schema", "A b"]), "schema name \"A b\" is not valid");
    database.execute("delete from annals.migrations where number > 1").await;
    assert_fails_with(&verify(&database, &[]), "is at migration 1, this program needs");
}

#[tokio::test]
async fn ctrl_c_stops_it() {
    let (database, _store) = recorded().await;
    // It waits for a table that another session keeps for itself.
    let (client, connection) =
        tokio_postgres::connect(&database.url(), tokio_postgres::NoTls).await.unwrap();
    tokio::spawn(connection);
    client.batch_execute("begin; lock table annals.events in access exclusive mode").await.unwrap();
    let running = admin(&["verify"])
        .env("DATABASE_URL", database.url())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let waiting =
        "select count(*) from pg_locks where not granted and relation = 'annals.events'::regclass";
    while client.query_one(waiting, &[]).await.unwrap().get::<_, i64>(0) == 0 {
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    let stop = Command::new("kill").args(["-INT", &running.id().to_string()]).status().unwrap();
    assert!(stop.success());
    let output = running.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(130));
    assert_eq!(text(&output.stderr), "stopped; nothing was changed\n");
    assert!(output.stdout.is_empty());
}

#[test]
fn shapes_that_did_not_change_are_a_success() {
    let output = admin(&["shapes", "check", "--lock", LOCK]).output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    assert_eq!(text(&output.stdout), format!("The stored shapes are those of {LOCK}.\n"));
    let output = admin(&["shapes", "check", "--lock", LOCK, "--output", "json"]).output().unwrap();
    assert_eq!(json(&output), json!({"lock": LOCK, "same": true, "changes": []}));
    let shown = admin(&["shapes", "show"]).output().unwrap();
    assert_eq!(text(&shown.stdout), std::fs::read_to_string(LOCK).unwrap());
}

#[test]
fn a_shape_that_changed_is_shown_and_has_a_code_of_its_own() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("events.lock");
    let lock = path.to_str().unwrap();
    let shapes =
        |args: &[&str]| admin(&[&["shapes"], args, &["--lock", lock]].concat()).output().unwrap();
    // There is none yet.
    let output = shapes(&["check"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(text(&output.stdout).contains("run `shapes write`"), "{output:?}");
    let output = shapes(&["write"]);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    assert!(
        text(&output.stdout).starts_with("added [loan_application status_reached 1]\n"),
        "{output:?}"
    );
    assert_eq!(shapes(&["check"]).status.code(), Some(0));
    assert!(text(&shapes(&["write"]).stdout).ends_with("was up to date.\n"));

    // As if the code had changed the type of a field.
    let written = std::fs::read_to_string(&path).unwrap();
    let earlier = written.replacen("amount_requested: i64", "amount_requested: i32", 1);
    std::fs::write(&path, &earlier).unwrap();
    for command in ["check", "write"] {
        let output = shapes(&[command]);
        assert_eq!(output.status.code(), Some(2), "{command}");
        let printed = text(&output.stdout);
        for part in [
            "[loan_application offer_moved 1] the stored shape changed, and the version did not:",
            "    -   amount_requested: i32\n    +   amount_requested: i64\n",
            "#[event(version = 2)]",
        ] {
            assert!(printed.contains(part), "{command}: {printed}");
        }
        assert_eq!(std::fs::read_to_string(&path).unwrap(), earlier);
    }
    let changes = json(&shapes(&["check", "--output", "json"]))["changes"].clone();
    assert_eq!(changes.as_array().unwrap().len(), 1);
    let change = ["kind", "category", "event_type", "version"].map(|name| changes[0][name].clone());
    assert_eq!(json!(change), json!(["changed", "loan_application", "offer_moved", 1]));

    std::fs::write(&path, "format 99\n").unwrap();
    assert_fails_with(&shapes(&["check"]), "newer version");
    assert_fails_with(&shapes(&["write"]), "newer version");
}
