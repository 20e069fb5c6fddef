//! What the tests of the publisher share: a store and a context of their own, and a topic's content.

// Each test binary uses a part of it.
#![allow(dead_code, unused_imports)]

pub(crate) mod cluster;
mod process;
pub(crate) mod topic;

use std::{
    error::Error as _,
    time::{Duration, Instant},
};

use annals_eventstore::{
    Append, Error, EventStore, ExpectedVersion, NewEvent, Payload, Position, Recorded, StreamId,
    kafka::{Builder, Delivery, Progress, ProgressRecord, Publisher},
    postgres::Checkpoint,
};
use futures::TryStreamExt;
use rand::Rng;
use tokio::sync::watch;
use tokio_postgres::NoTls;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

pub(crate) use self::{
    process::{Process, What},
    topic::{
        Message, end_of, is_transaction_open, java_partition, partitions, read_places,
        read_progress, read_topic,
    },
};

/// A lease whose end is waited for.
pub(crate) const LEASE: Duration = Duration::from_millis(500);
/// One that no stall of the machine ends. Who stops gives it back.
pub(crate) const STEADY: Duration = Duration::from_secs(10);
pub(crate) const PARTITIONS: u16 = 4;
pub(crate) const CATEGORIES: [&str; 2] = ["loan", "member_card"];

/// A store in a database of its own, and a context of its own.
pub(crate) struct Setup {
    pub(crate) store: EventStore,
    pub(crate) url: String,
    pub(crate) brokers: String,
    pub(crate) context: String,
    /// Where the database is made.
    server: String,
}

impl Setup {
    pub(crate) async fn new() -> Self {
        Self::on(variable("DATABASE_URL"), variable("KAFKA_BROKERS")).await
    }

    /// The same on other servers.
    pub(crate) async fn on(server: String, brokers: String) -> Self {
        let name = format!("kafka_{}", Uuid::now_v7().simple());
        execute(&server, &format!("create database {name}")).await;
        let url = with_database(&server, &name);
        let store = EventStore::connect(&url).await.unwrap();
        Self { store, url, brokers, context: name.replace("kafka_", "test."), server }
    }

    pub(crate) fn publisher(&self) -> Builder {
        publisher(&self.brokers, &self.context)
    }

    pub(crate) fn topic(&self, category: &str) -> String {
        format!("{}.{category}.events.v1", self.context)
    }

    pub(crate) fn topic_content(&self, category: &str) -> Vec<Message> {
        read_topic(&self.brokers, &self.topic(category))
    }

    /// Waits until the publisher's checkpoint is at a position.
    pub(crate) async fn checkpoint_reaches(&self, position: i64) {
        let start = Instant::now();
        while self.checkpoint().await < position {
            assert!(start.elapsed() < Duration::from_secs(60), "the checkpoint stands still");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// Runs a publisher to the end of the log and stops it.
    pub(crate) async fn finish(&self) {
        self.finish_with(Delivery::ExactlyOnce).await;
    }

    /// The same, with this delivery.
    pub(crate) async fn finish_with(&self, delivery: Delivery) {
        self.publish_all(self.publisher().delivery(delivery).lease_time_to_live(STEADY)).await;
    }

    /// The same with other options. What it came to.
    pub(crate) async fn publish_all(&self, builder: Builder) -> Progress {
        let publisher = builder.build(&self.store).unwrap();
        let mut progress = publisher.progress();
        let stop = CancellationToken::new();
        let running = tokio::spawn(publisher.run_until(stop.clone()));
        let end = self.store.safe_position().await.unwrap();
        // What was appended meanwhile may be passed at once.
        let now = wait_for(&mut progress, |progress| progress.position >= end).await;
        // Who is told to stop has little time for it.
        self.checkpoint_reaches(end.get()).await;
        stop.cancel();
        running.await.unwrap().unwrap();
        now
    }

    /// What a publisher ends with.
    pub(crate) async fn error(&self, builder: Builder) -> Error {
        let publisher = builder.build(&self.store).unwrap();
        let progress = publisher.progress();
        let ended = tokio::time::timeout(Duration::from_secs(40), publisher.run()).await;
        let Ok(ended) = ended else { panic!("it goes on; it is at {:?}", *progress.borrow()) };
        ended.expect_err("it fails")
    }

    /// The same as text, the causes included.
    pub(crate) async fn failure(&self, builder: Builder) -> String {
        let error = self.error(builder).await;
        let (mut said, mut source) = (error.to_string(), error.source());
        while let Some(cause) = source {
            said = format!("{said}: {cause}");
            source = cause.source();
        }
        said
    }

    pub(crate) fn topic_exists(&self, category: &str) -> bool {
        self.topic_exists_named(&self.topic(category))
    }

    pub(crate) fn topic_exists_named(&self, topic: &str) -> bool {
        partitions(&self.brokers, topic) > 0
    }

    pub(crate) fn wait_for_topic(&self, topic: &str) {
        let start = std::time::Instant::now();
        while !self.topic_exists_named(topic) {
            assert!(start.elapsed() < Duration::from_secs(30), "{topic} does not appear");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// How many partitions a topic has.
    pub(crate) fn partitions(&self, topic: &str) -> usize {
        partitions(&self.brokers, topic)
    }

    /// The publisher's checkpoint.
    pub(crate) async fn checkpoint(&self) -> i64 {
        let database = self.store.database().unwrap();
        let position = Checkpoint::position_of(database, Publisher::CHECKPOINT).await.unwrap();
        position.unwrap_or_default().get()
    }

    pub(crate) async fn log(&self) -> Vec<Recorded> {
        self.store.read_all(Position::START).try_collect().await.unwrap()
    }

    /// Appends events, one to three at a time, to streams of both categories.
    pub(crate) async fn append(&self, events: usize) {
        let mut left = events;
        while left > 0 {
            let (stream, payloads) = {
                let mut random = rand::rng();
                let category = CATEGORIES[random.random_range(0..CATEGORIES.len())];
                let stream = StreamId::new(category, random.random_range(0..30)).unwrap();
                let count = random.random_range(1..=3).min(left);
                let payload = |_| format!(r#"{{"n" : {}}}"#, random.random::<u32>());
                (stream, (0..count).map(payload).collect::<Vec<_>>())
            };
            left -= payloads.len();
            let events = payloads.into_iter().map(event);
            let append = Append::to(stream, ExpectedVersion::Any, events);
            self.store.append(append).await.unwrap();
        }
    }

    /// Checks that the topics hold the log, and nothing besides: no event twice, in each partition in order.
    /// And that the publisher has told so, and never of less than before.
    pub(crate) async fn assert_published_once(&self) {
        let log = self.log().await;
        for category in CATEGORIES {
            let published = self.topic_content(category);
            for partition in 0..i32::from(PARTITIONS) {
                let inside: Vec<_> =
                    published.iter().filter(|message| message.partition == partition).collect();
                assert!(
                    inside.is_sorted_by_key(|message| message.position()),
                    "partition {partition} of {category} is out of order"
                );
            }
            let mut published = published;
            published.sort_by_key(Message::position);
            let positions: Vec<_> = published.iter().map(Message::position).collect();
            let expected: Vec<_> =
                log.iter().filter(|event| event.stream.category() == category).collect();
            let expected_positions: Vec<_> = expected.iter().map(|event| event.position).collect();
            assert_eq!(positions, expected_positions, "the positions of {category}");
            for (message, event) in published.iter().zip(expected) {
                message.assert_is(event, &self.context);
            }
        }
        let told = self.progress();
        assert!(told.is_sorted_by_key(|progress| progress.position), "progress went back");
        let end = self.store.safe_position().await.unwrap();
        assert_eq!(told.last().map(|progress| progress.position), Some(end));
    }

    /// What the publisher has told of how far the store is published.
    pub(crate) fn progress(&self) -> Vec<ProgressRecord> {
        let key = self.transactional_id();
        let told = read_progress(&self.brokers, &self.context);
        told.into_iter().filter(|(of, _)| *of == key).map(|(_, progress)| progress).collect()
    }

    /// Where the topic of the progress ends, with what is not committed.
    pub(crate) fn progress_end(&self) -> i64 {
        end_of(&self.brokers, &ProgressRecord::topic(&self.context), 0)
    }

    /// Whether consumers have to wait anywhere for a transaction to end.
    pub(crate) fn is_transaction_open(&self) -> bool {
        is_transaction_open(&self.brokers, &format!("{}.", self.context))
    }

    /// A copy of the database, as it is now.
    pub(crate) async fn copy(&self, suffix: &str) -> Copy {
        let base = &self.server;
        let from = self.context.replace("test.", "kafka_");
        let name = format!("{from}{suffix}");
        let copy = format!("create database {name} template {from}");
        let alone = format!(
            "select pg_terminate_backend(pid, 5000) from pg_stat_activity where datname = '{from}'"
        );
        for _ in 0..20 {
            execute(base, &alone).await;
            if try_execute(base, &copy).await.is_ok() {
                let url = with_database(base, &name);
                return Copy { url, name, server: base.clone() };
            }
        }
        panic!("{from} is in use");
    }

    /// What the store's publishers are called at the broker.
    pub(crate) fn transactional_id(&self) -> String {
        format!("{0}.publisher.{1}.annals", self.context, self.context.replace("test.", "kafka_"))
    }

    /// Checks the topics as a consumer sees them that drops, in each partition, what is not above
    /// the last position: what is left is the log, whole and in order.
    pub(crate) async fn assert_all_published(&self) {
        let log = self.log().await;
        for category in CATEGORIES {
            let expected: Vec<_> =
                log.iter().filter(|event| event.stream.category() == category).collect();
            let mut last = [Position::START; PARTITIONS as usize];
            let mut seen = Vec::new();
            for message in self.topic_content(category) {
                let last = &mut last[message.partition as usize];
                if message.position() > *last {
                    *last = message.position();
                    seen.push(message);
                }
            }
            // Within a partition they are in order, or they would have been dropped.
            seen.sort_by_key(Message::position);
            let positions: Vec<_> = seen.iter().map(Message::position).collect();
            let expected_positions: Vec<_> = expected.iter().map(|event| event.position).collect();
            assert_eq!(positions, expected_positions, "the positions of {category}");
            for (message, event) in seen.iter().zip(expected) {
                message.assert_is(event, &self.context);
            }
        }
    }
}

/// A copy of a database, which ends with this.
pub(crate) struct Copy {
    pub(crate) url: String,
    name: String,
    server: String,
}

impl Drop for Copy {
    fn drop(&mut self) {
        drop_database(&self.server, &self.name);
    }
}

impl Drop for Setup {
    fn drop(&mut self) {
        drop_database(&self.server, &self.context.replace("test.", "kafka_"));
    }
}

/// Drops it, unless a test has failed: then it is left to be looked at.
fn drop_database(server: &str, name: &str) {
    if std::thread::panicking() {
        return;
    }
    let (server, name) = (server.to_owned(), name.to_owned());
    let drop = async move {
        execute(&server, &format!("drop database {name} with (force)")).await;
    };
    // There may be a runtime on this thread, and it must not block.
    let _ = std::thread::spawn(|| {
        tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(drop)
    })
    .join();
}

pub(crate) fn publisher(brokers: &str, context: &str) -> Builder {
    Publisher::builder(brokers, context).partitions(PARTITIONS).batch(50)
}

pub(crate) fn event(json: impl Into<String>) -> NewEvent {
    NewEvent::raw("Noted", 1, Payload::from_json(json.into()).unwrap())
}

/// Waits until a publisher says that something is so.
pub(crate) async fn wait_for(
    progress: &mut watch::Receiver<Progress>,
    what: impl FnMut(&Progress) -> bool,
) -> Progress {
    let watched = progress.clone();
    let waited = tokio::time::timeout(Duration::from_secs(60), progress.wait_for(what)).await;
    let Ok(now) = waited else { panic!("still waiting; it is at {:?}", *watched.borrow()) };
    now.expect("the publisher runs").clone()
}

/// Runs SQL in a database.
pub(crate) async fn execute(url: &str, sql: &str) {
    try_execute(url, sql).await.unwrap();
}

async fn try_execute(url: &str, sql: &str) -> Result<(), tokio_postgres::Error> {
    let (client, connection) = tokio_postgres::connect(url, NoTls).await?;
    tokio::spawn(connection);
    client.batch_execute(sql).await
}

pub(crate) fn variable(name: &str) -> String {
    std::env::var(name).unwrap_or_else(|_| {
        panic!("{name} is not set; `cargo xtask test` starts the services and sets it")
    })
}

/// The same server, another database.
fn with_database(url: &str, name: &str) -> String {
    if !url.contains("://") {
        return format!("{url} dbname={name}");
    }
    let (address, options) = url.split_once('?').map_or((url, ""), |(a, o)| (a, o));
    let server = match address.match_indices('/').nth(2) {
        Some((slash, _)) => &address[..slash],
        None => address,
    };
    format!("{server}/{name}?{options}")
}

pub(crate) fn random_millis(range: std::ops::Range<u64>) -> Duration {
    Duration::from_millis(rand::rng().random_range(range))
}
