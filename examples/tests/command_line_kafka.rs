//! `kafka verify` as its users run it: the real binary, its output and its exit codes.

#![allow(clippy::unwrap_used)] // A helper that fails fails its test.

mod support;

use std::{process::Output, time::Duration};

use annals::{EventStore, kafka::Publisher};
use rdkafka::{
    ClientConfig,
    producer::{BaseProducer, BaseRecord, Producer as _},
};
use serde_json::json;
use support::{
    Database,
    admin::{admin, assert_fails_with, json, recorded, text},
};
use tokio_util::sync::CancellationToken;

fn brokers() -> String {
    std::env::var("KAFKA_BROKERS")
        .expect("KAFKA_BROKERS is not set; run the tests with `cargo xtask test`")
}

fn verify(database: &Database, args: &[&str]) -> Output {
    let mut command = admin(&[&["kafka", "verify"], args].concat());
    command.env("DATABASE_URL", database.url()).output().unwrap()
}

async fn publish(store: &EventStore, context: &str) {
    let publisher = Publisher::builder(brokers(), context).build(store).unwrap();
    let mut progress = publisher.progress();
    let stop = CancellationToken::new();
    let running = tokio::spawn(publisher.run_until(stop.clone()));
    let end = store.safe_position().await.unwrap();
    let published = progress.wait_for(|progress| progress.position == end);
    tokio::time::timeout(Duration::from_secs(60), published).await.unwrap().unwrap();
    stop.cancel();
    running.await.unwrap().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn it_says_whether_the_topics_hold_what_the_store_holds() {
    let (database, store) = recorded().await;
    let context = format!("test.{}", database.name());
    publish(&store, &context).await;
    let output = verify(&database, &["--context", &context]);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let printed = text(&output.stdout);
    assert!(printed.starts_with("Published up to position 6; the log ends at 6:\n"), "{printed}");
    let topic = format!("{context}.loan_application.events.v1");
    assert!(printed.contains(&topic) && printed.ends_with("\nAll is well.\n"), "{printed}");

    let producer: BaseProducer =
        ClientConfig::new().set("bootstrap.servers", brokers()).create().unwrap();
    let foreign = BaseRecord::to(&topic).partition(0).key("k").payload("{}");
    producer.send(foreign).map_err(|(error, _)| error).unwrap();
    producer.flush(Duration::from_secs(20)).unwrap();
    let output = verify(&database, &["--context", &context]);
    assert_eq!(output.status.code(), Some(2), "{output:?}");
    let printed = text(&output.stdout);
    assert!(
        printed.contains("1. unreadable: ") && printed.ends_with("\n1 finding.\n"),
        "{printed}"
    );

    let output = verify(&database, &["--context", &context, "--output", "json"]);
    assert_eq!(output.status.code(), Some(2));
    let document = json(&output);
    assert_eq!(document["sound"], json!(false));
    assert_eq!(document["counts"], json!({ "unreadable": 1 }));
    assert_eq!(document["findings"][0]["record"]["topic"], json!(topic));
    assert_eq!(document["events"], json!(6));
}

#[tokio::test]
async fn what_it_needs_to_know_is_asked_for() {
    let (database, _store) = recorded().await;
    assert_fails_with(&verify(&database, &[]), "give --context");
    let mut command = admin(&["kafka", "verify", "--context", "x"]);
    command.env("DATABASE_URL", database.url()).env_remove("KAFKA_BROKERS");
    assert_fails_with(&command.output().unwrap(), "KAFKA_BROKERS is not set");
}
