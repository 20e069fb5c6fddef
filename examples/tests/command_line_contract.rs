//! The contract of the example `loans`, through its command line.

#![allow(clippy::unwrap_used)] // A helper that fails fails its test.

mod support;

use std::{fs, path::Path, process::Output};

use serde_json::json;
use support::admin::{admin, assert_fails_with, json, text};

const PUBLISHED: &str = "examples/loans/contracts";

fn contract(args: &[&str]) -> Output {
    admin(&[&["contract"], args].concat()).output().unwrap()
}

/// The names of the files there, sorted, and their texts.
fn files(directory: &Path) -> Vec<(String, String)> {
    let mut files: Vec<_> = fs::read_dir(directory)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .map(|path| {
            let name = path.file_name().unwrap().to_str().unwrap().to_owned();
            (name, fs::read_to_string(path).unwrap())
        })
        .collect();
    files.sort();
    files
}

/// A copy of the published contract.
fn copy() -> tempfile::TempDir {
    let directory = tempfile::tempdir().unwrap();
    for (name, text) in files(Path::new(PUBLISHED)) {
        fs::write(directory.path().join(name), text).unwrap();
    }
    directory
}

fn change(directory: &tempfile::TempDir, name: &str, from: &str, to: &str) {
    let path = directory.path().join(name);
    let text = fs::read_to_string(&path).unwrap();
    assert!(text.contains(from), "{text}");
    fs::write(path, text.replacen(from, to, 1)).unwrap();
}

#[test]
fn the_published_contract_is_that_of_the_code() {
    let output = contract(&["check", PUBLISHED, "--compatibility", "full"]);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let expected = format!("The contract is compatible with {PUBLISHED} (full).\n");
    assert_eq!(text(&output.stdout), expected);
    let output = contract(&["check", PUBLISHED, "--output", "json"]);
    assert_eq!(
        json(&output),
        json!({
            "directory": PUBLISHED, "compatibility": "backward", "compatible": true,
            "differences": [], "additions": [], "unknown_versions": [],
        })
    );
    // Written anew, it is the same: each file is a snapshot.
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().to_str().unwrap();
    let output = contract(&["publish", path]);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    assert!(
        text(&output.stdout).starts_with("added loan_application.offer_moved.v1\n"),
        "{output:?}"
    );
    let (expected, found) = (files(Path::new(PUBLISHED)), files(directory.path()));
    assert_eq!(found, expected, "if it is meant: contract publish examples/{PUBLISHED}");
    assert_eq!(found.len(), 7);
}

#[test]
fn a_change_that_breaks_is_named_and_has_a_code_of_its_own() {
    let directory = copy();
    let path = directory.path().to_str().unwrap();
    // As if the amount had been a text when it was published.
    let file = "loan_application.offer_moved.v1.json";
    change(&directory, file, "\"type\": \"integer\"", "\"type\": \"string\"");
    change(&directory, file, "      \"format\": \"int64\",\n", "");
    let before = files(directory.path());
    let message = "loan_application.offer_moved.v1 /properties/amount_requested: type string -> integer: \
                   consumers of the new contract cannot read what was published";
    for command in ["check", "publish"] {
        let output = contract(&[command, path]);
        assert_eq!(output.status.code(), Some(2), "{output:?}");
        let printed = text(&output.stdout);
        assert!(
            printed
                .starts_with(&format!("The contract is not compatible with {path} (backward):\n")),
            "{printed}"
        );
        assert!(printed.contains(&format!("\n  {message}\n")), "{printed}");
        assert!(printed.contains("#[event(version = ..)]"), "{printed}");
    }
    assert_eq!(files(directory.path()), before, "what is not compatible is not written");
    let output = contract(&["check", path, "--output", "json"]);
    assert_eq!(output.status.code(), Some(2));
    assert_eq!(
        json(&output)["differences"],
        json!([{
            "event": "loan_application.offer_moved.v1",
            "category": "loan_application",
            "event_type": "offer_moved",
            "version": 1,
            "compared_with_version": null,
            "pointer": "/properties/amount_requested",
            "change": "type string -> integer",
            "consequence": "consumers of the new contract cannot read what was published",
            "comparable": true,
            "message": message,
        }])
    );
    // Whoever says so may break.
    assert_eq!(contract(&["check", path, "--compatibility", "none"]).status.code(), Some(0));
    assert_eq!(contract(&["publish", path, "--compatibility", "none"]).status.code(), Some(0));
    assert_eq!(contract(&["check", path]).status.code(), Some(0));
}

#[test]
fn directions_differ() {
    let directory = copy();
    let path = directory.path().to_str().unwrap();
    // As if one state had not been published yet: those who know the old contract do not know it.
    change(&directory, "loan_application.offer_moved.v1.json", "        \"sent_back\",\n", "");
    for (compatibility, code) in [("backward", 0), ("forward", 2), ("full", 2), ("none", 0)] {
        let output = contract(&["check", path, "--compatibility", compatibility]);
        assert_eq!(output.status.code(), Some(code), "{output:?}");
        let value = "/definitions/OfferState: value \"sent_back\" not allowed -> allowed: \
                     consumers of the published contract cannot read what will be published";
        assert_eq!(text(&output.stdout).contains(value), code == 2, "{output:?}");
    }
    // As if it had been published and was gone.
    change(
        &directory,
        "loan_application.offer_moved.v1.json",
        "\"sent\"",
        "\"lost\", \"sent\", \"sent_back\"",
    );
    for (compatibility, code) in [("backward", 2), ("forward", 0)] {
        let output = contract(&["check", path, "--compatibility", compatibility]);
        assert_eq!(output.status.code(), Some(code), "{output:?}");
    }
}

#[test]
fn documents_are_printed_or_written() {
    let output = contract(&["schema", "--category", "loan_application"]);
    let amount = "/loan_application.offer_moved.v1/properties/amount_requested/type";
    assert_eq!(json(&output).pointer(amount).unwrap(), "integer");
    let documents = [("asyncapi", "asyncapi.yaml"), ("data", "loan_application.odcs.yaml")];
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().to_str().unwrap();
    for (command, file) in documents {
        let output = contract(&[command]);
        assert_eq!(output.status.code(), Some(0), "{output:?}");
        let published = fs::read_to_string(Path::new(PUBLISHED).join(file)).unwrap();
        assert_eq!(text(&output.stdout), published);
        assert_eq!(contract(&[command, "--out", path]).status.code(), Some(0));
    }
    assert_eq!(contract(&["schema", "--out", path]).status.code(), Some(0));
    assert_eq!(files(directory.path()), files(Path::new(PUBLISHED)));
    // Older versions that are published somewhere are a part of it.
    let older = copy();
    let (from, to) =
        ("loan_application.work_started.v1.json", "loan_application.work_begun.v3.json");
    fs::rename(older.path().join(from), older.path().join(to)).unwrap();
    for (command, _) in documents {
        let printed = contract(&[command, "--published", older.path().to_str().unwrap()]);
        assert!(text(&printed.stdout).contains("work_begun.v3"), "{printed:?}");
    }
}

#[test]
fn what_cannot_run_is_one_line() {
    let nothing = contract(&["schema", "--category", "nothing"]);
    assert_fails_with(&nothing, "it has loan_application");
    let directory = tempfile::tempdir().unwrap();
    fs::write(directory.path().join("loan.x.v1.json"), "{").unwrap();
    assert_fails_with(&contract(&["check", directory.path().to_str().unwrap()]), "loan.x.v1.json");
    // Nothing was published yet: all is new, and nothing breaks.
    let output = contract(&["check", "no/such/directory"]);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    assert!(
        text(&output.stdout).contains("loan_application.offer_moved.v1 is new.\n"),
        "{output:?}"
    );
}
