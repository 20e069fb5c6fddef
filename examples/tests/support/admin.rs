//! The command line of the example `loans`, and a store to run it on.

use std::process::{Command, Output};

use annals::{EventStore, StreamId};
use serde_json::Value;

use super::{Database, example};

pub(crate) fn admin(args: &[&str]) -> Command {
    let mut command = example("loans_admin");
    command.env_remove("DATABASE_URL").args(args);
    command
}

pub(crate) fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

/// What was printed for programs; nothing else was.
pub(crate) fn json(output: &Output) -> Value {
    assert_eq!(text(&output.stderr), "");
    serde_json::from_slice(&output.stdout).unwrap()
}

/// One line on stderr, nothing on stdout, exit code 1.
pub(crate) fn assert_fails_with(output: &Output, expected: &str) {
    let errors = text(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{errors}");
    assert_eq!(errors.lines().count(), 1, "{errors}");
    assert!(errors.starts_with("error: ") && errors.contains(expected), "{errors}");
    assert!(output.stdout.is_empty());
}

/// Three applications, each of two events.
pub(crate) async fn recorded() -> (Database, EventStore) {
    let database = Database::create().await;
    let store = EventStore::connect(&database.url()).await.unwrap();
    let payload = r#"{"status":"submitted","amount_requested":100}"#;
    let event = || {
        let payload = annals::Payload::from_json(payload).unwrap();
        annals::NewEvent::raw("status_reached", 1, payload)
    };
    for application in 1..=3 {
        let stream = StreamId::new("loan_application", application).unwrap();
        let any = annals::ExpectedVersion::Any;
        store.append(annals::Append::to(stream, any, [event(), event()])).await.unwrap();
    }
    (database, store)
}
