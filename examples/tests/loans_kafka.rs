//! The loans example with Kafka: what is published, what a kill leaves, and a broker that is down.

#![allow(clippy::unwrap_used)] // A helper that fails fails its test.

mod support;

use std::{
    collections::{HashMap, HashSet},
    process::{Command, Stdio},
    time::Duration,
};

use annals::kafka::ProgressRecord;
use rdkafka::{
    ClientConfig, Message, Offset, TopicPartitionList,
    admin::{AdminClient, AdminOptions},
    client::DefaultClientContext,
    consumer::{BaseConsumer, Consumer},
    error::KafkaError,
    message::Headers,
};
use serde_json::Value;
use support::{Database, example};

/// A topic of the test's own, removed at the end.
struct Topic {
    context: String,
    name: String,
}

impl Topic {
    fn of(database: &Database) -> Self {
        let context = format!("test.{}", database.name());
        Self { name: format!("{context}.loan_application.events.v1"), context }
    }

    fn config() -> ClientConfig {
        let brokers = std::env::var("KAFKA_BROKERS")
            .expect("KAFKA_BROKERS is not set; run the tests with `cargo xtask test`");
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", brokers);
        config
    }

    /// Everything in the topic: for each stream, the versions in the order of the partition.
    fn read(&self) -> HashMap<String, Vec<i64>> {
        let consumer: BaseConsumer = Self::config()
            .set("group.id", &self.context)
            .set("enable.partition.eof", "true")
            .set("isolation.level", "read_committed")
            .create()
            .unwrap();
        let patience = Duration::from_secs(10);
        let metadata = consumer.fetch_metadata(Some(&self.name), patience).unwrap();
        let mut assignment = TopicPartitionList::new();
        let mut open = HashSet::new();
        for partition in metadata.topics()[0].partitions() {
            open.insert(partition.id());
            assignment.add_partition_offset(&self.name, partition.id(), Offset::Beginning).unwrap();
        }
        consumer.assign(&assignment).unwrap();
        let mut streams: HashMap<String, Vec<i64>> = HashMap::new();
        while !open.is_empty() {
            let message = match consumer.poll(patience).expect("the topic ends") {
                Err(KafkaError::PartitionEOF(partition)) => {
                    open.remove(&partition);
                    continue;
                }
                message => message.unwrap(),
            };
            let header = |name| {
                let found = message.headers().unwrap().iter().find(|h| h.key == name);
                String::from_utf8(found.unwrap().value.unwrap().to_vec()).unwrap()
            };
            let key = String::from_utf8(message.key().unwrap().to_vec()).unwrap();
            assert_eq!(header("ce_subject"), key);
            streams.entry(key).or_default().push(header("ce_streamversion").parse().unwrap());
        }
        streams
    }
}

impl Drop for Topic {
    fn drop(&mut self) {
        let admin: AdminClient<DefaultClientContext> = Self::config().create().unwrap();
        let options = AdminOptions::new();
        let progress = ProgressRecord::topic(&self.context);
        let removed = admin.delete_topics(&[&self.name, &progress], &options);
        // A test that failed before anything was published has no topic.
        drop(futures::executor::block_on(removed));
    }
}

fn loans(database: &Database, topic: &Topic) -> Command {
    let mut command = example("loans");
    command.env("DATABASE_URL", database.url()).args([
        "--context",
        &topic.context,
        "--format",
        "json",
    ]);
    command
}

#[tokio::test]
async fn a_run_that_is_killed_publishes_every_event_once_and_each_stream_in_order() {
    let database = Database::create().await;
    let topic = Topic::of(&database);
    for milliseconds in [500, 1500, 2500] {
        let mut killed =
            loans(&database, &topic).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        tokio::time::sleep(Duration::from_millis(milliseconds)).await;
        killed.kill().unwrap();
        killed.wait().unwrap();
    }
    let finished = loans(&database, &topic).output().unwrap();
    assert!(finished.status.success(), "{}", String::from_utf8_lossy(&finished.stderr));
    let report: Value = serde_json::from_slice(&finished.stdout).unwrap();
    assert_eq!(report["published"], report["events"]);

    let streams = topic.read();
    assert_eq!(report["applications"].as_u64(), Some(streams.len() as u64));
    let mut events = 0;
    for (stream, versions) in streams {
        let last = versions.len() as i64;
        assert!(versions.into_iter().eq(1..=last), "{stream}");
        events += last;
    }
    assert_eq!(report["events"].as_i64(), Some(events));
}

#[tokio::test]
async fn a_broker_that_is_down_stops_publishing_only() {
    let database = Database::create().await;
    let topic = Topic::of(&database);
    let run = |args: &[&str]| loans(&database, &topic).args(args).output().unwrap();
    let output = run(&["--kafka-brokers", "127.0.0.1:1", "--verify"]);
    let errors = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{errors}");
    let lines: Vec<_> = errors.lines().filter(|line| line.starts_with("error: ")).collect();
    assert_eq!(lines.len(), 1, "{errors}");
    assert!(lines[0].contains("Kafka at 127.0.0.1:1 does not answer"), "{errors}");
    // Commands and projection went on, and are right.
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert!(report["events"].as_u64() > Some(50_000), "{report}");
    assert_eq!(report["published"], 0);
    assert!(errors.contains("verified: "), "{errors}");

    // The next run publishes what this one could not.
    let report: Value = serde_json::from_slice(&run(&[]).stdout).unwrap();
    assert_eq!(report["published"], report["events"]);
}
