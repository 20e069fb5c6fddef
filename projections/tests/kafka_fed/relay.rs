//! A context of a test's own: its publisher, and what happens to its topics.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use annals_eventstore::{
    EventStore, Position,
    kafka::{Builder, Publisher, Security},
};
use annals_projections::{
    ReadModel, Worker,
    control::{self, FedBy},
    kafka::Source,
};
use rdkafka::{
    ClientConfig, Offset, TopicPartitionList,
    admin::{AdminClient, AdminOptions},
    client::DefaultClientContext,
    consumer::{BaseConsumer, Consumer},
    message::{Header, Headers, Message, OwnedHeaders},
    producer::{FutureProducer, FutureRecord},
};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::support::{PATIENCE, eventually, in_time, worker};

pub(crate) const PARTITIONS: u16 = 4;
const BROKER: Duration = Duration::from_secs(20);

fn brokers() -> String {
    std::env::var("KAFKA_BROKERS").unwrap_or_else(|_| {
        panic!("these tests need Kafka: run `cargo xtask test`, or set KAFKA_BROKERS")
    })
}

/// A context, and the publisher that publishes a store to it until this is dropped.
pub(crate) struct Relay {
    pub(crate) context: String,
    pub(crate) brokers: String,
    security: Security,
    store: EventStore,
    running: Option<(CancellationToken, JoinHandle<()>)>,
}

impl Relay {
    /// Publishes all events of a store.
    pub(crate) async fn start(store: &EventStore) -> Self {
        Self::at(brokers(), Security::new(), store)
    }

    /// Publishes all events of a store to these brokers.
    pub(crate) fn at(brokers: String, security: Security, store: &EventStore) -> Self {
        let mut relay = Self::new(brokers, security, store);
        relay.go_on();
        relay
    }

    /// Publishes a store as its publisher is told to.
    pub(crate) fn told(store: &EventStore, told: impl FnOnce(Builder) -> Builder) -> Self {
        let mut relay = Self::new(brokers(), Security::new(), store);
        relay.run(told(relay.publisher()));
        relay
    }

    fn new(brokers: String, security: Security, store: &EventStore) -> Self {
        let context = format!("fed.{}", Uuid::now_v7().simple());
        Self { context, brokers, security, store: store.clone(), running: None }
    }

    fn publisher(&self) -> Builder {
        Publisher::builder(&self.brokers, &self.context)
            .partitions(PARTITIONS)
            .security(self.security.clone())
            .lease_time_to_live(Duration::from_millis(1500))
    }

    pub(crate) fn go_on(&mut self) {
        self.run(self.publisher());
    }

    fn run(&mut self, publisher: Builder) {
        let publisher = publisher.build(&self.store).unwrap();
        let stop = CancellationToken::new();
        let told = stop.clone();
        let publishing = tokio::spawn(async move { publisher.run_until(told).await.unwrap() });
        self.running = Some((stop, publishing));
    }

    pub(crate) async fn stop(&mut self) {
        if let Some((stop, publishing)) = self.running.take() {
            stop.cancel();
            in_time(publishing).await.unwrap();
        }
    }

    pub(crate) fn source(&self) -> Source {
        Source::new(&self.brokers, &self.context).unwrap()
    }

    /// A worker on one read model, fed by Kafka.
    pub(crate) fn worker<R: ReadModel>(&self, store: &EventStore) -> Worker {
        worker::<R>(store).kafka(self.source())
    }

    /// Waits until all that the log has now is published.
    pub(crate) async fn published(&self) -> Position {
        let end = self.store.safe_position().await.unwrap();
        eventually("all is published", || async {
            let database = self.store.database().unwrap();
            let at = annals_eventstore::postgres::Checkpoint::position_of(
                database,
                Publisher::CHECKPOINT,
            );
            at.await.unwrap().unwrap_or_default() >= end
        })
        .await;
        end
    }

    /// Has events appended until Kafka feeds all slices of a projection.
    pub(crate) async fn feeds<F: Future<Output = ()>>(
        &self,
        projection: &str,
        append: impl Fn() -> F,
    ) {
        eventually("Kafka feeds it", || async {
            append().await;
            let status = control::status(&self.store).await.unwrap();
            let found = status.iter().find(|found| found.name == projection);
            found.is_some_and(|found| found.slices.iter().all(|slice| slice.fed_by == FedBy::Kafka))
        })
        .await;
    }

    pub(crate) fn topic(&self, category: &str) -> String {
        format!("{}.{category}.events.v1", self.context)
    }

    /// Sends a record that is no event.
    pub(crate) async fn send_junk(&self, category: &str) {
        self.send(FutureRecord::to(&self.topic(category)).key("junk").payload("junk")).await;
    }

    /// Sends a record that is there for the end of a transaction alone.
    pub(crate) async fn send_end(&self, category: &str) {
        let header = Header { key: "annals-ends-transaction", value: Some("") };
        let topic = self.topic(category);
        let record = FutureRecord::<str, str>::to(&topic).key("end");
        self.send(record.headers(OwnedHeaders::new().insert(header))).await;
    }

    async fn send(&self, record: FutureRecord<'_, str, str>) {
        let producer: FutureProducer =
            ClientConfig::new().set("bootstrap.servers", &self.brokers).create().unwrap();
        producer.send(record.partition(0), BROKER).await.unwrap();
    }

    /// Whether any record of a topic was put aside.
    pub(crate) async fn has_dead_letters(&self, category: &str) -> bool {
        let (letters, brokers) = (format!("{}.dlq", self.topic(category)), self.brokers.clone());
        let looking = tokio::task::spawn_blocking(move || {
            let consumer: BaseConsumer =
                ClientConfig::new().set("bootstrap.servers", &brokers).create().unwrap();
            let all = consumer.fetch_metadata(None, BROKER).unwrap();
            all.topics().iter().any(|topic| topic.name() == letters)
        });
        looking.await.unwrap()
    }

    /// The headers of the first dead letters of a topic, once there are some.
    pub(crate) async fn dead_letters(&self, category: &str) -> Vec<HashMap<String, String>> {
        let (topic, brokers) = (format!("{}.dlq", self.topic(category)), self.brokers.clone());
        let reading = tokio::task::spawn_blocking(move || {
            let consumer: BaseConsumer = ClientConfig::new()
                .set("bootstrap.servers", &brokers)
                .set("group.id", "dead letters")
                .set("enable.auto.commit", "false")
                .create()
                .unwrap();
            let started = Instant::now();
            while consumer.fetch_metadata(Some(&topic), BROKER).unwrap().topics()[0]
                .error()
                .is_some()
            {
                assert!(started.elapsed() < PATIENCE / 2, "there is no topic of dead letters");
                std::thread::sleep(Duration::from_millis(50));
            }
            let mut all = TopicPartitionList::new();
            for partition in 0..i32::from(PARTITIONS) {
                all.add_partition_offset(&topic, partition, Offset::Beginning).unwrap();
            }
            consumer.assign(&all).unwrap();
            let mut letters = Vec::new();
            while letters.is_empty() || started.elapsed() < Duration::from_secs(3) {
                assert!(started.elapsed() < PATIENCE / 2, "no dead letter");
                let Some(Ok(message)) = consumer.poll(Duration::from_millis(100)) else { continue };
                let headers = message.headers().unwrap().iter();
                let text = |value: Option<&[u8]>| {
                    String::from_utf8(value.unwrap_or_default().to_vec()).unwrap()
                };
                letters.push(
                    headers.map(|header| (header.key.to_owned(), text(header.value))).collect(),
                );
            }
            letters
        });
        reading.await.unwrap()
    }

    fn admin(&self) -> AdminClient<DefaultClientContext> {
        ClientConfig::new().set("bootstrap.servers", &self.brokers).create().unwrap()
    }

    /// Makes a topic forget all that it holds, as retention does.
    pub(crate) async fn forget(&self, category: &str) {
        let topic = self.topic(category);
        let consumer: BaseConsumer =
            ClientConfig::new().set("bootstrap.servers", &self.brokers).create().unwrap();
        let mut offsets = TopicPartitionList::new();
        for partition in 0..i32::from(PARTITIONS) {
            let (_, end) = consumer.fetch_watermarks(&topic, partition, BROKER).unwrap();
            offsets.add_partition_offset(&topic, partition, Offset::Offset(end)).unwrap();
        }
        let deleted = self.admin().delete_records(&offsets, &AdminOptions::new()).await.unwrap();
        deleted.elements().iter().for_each(|element| element.error().unwrap());
    }

    /// Deletes a topic, and waits until it is gone.
    pub(crate) async fn delete(&self, category: &str) {
        let topic = self.topic(category);
        let deleted = self.admin().delete_topics(&[&topic], &AdminOptions::new()).await.unwrap();
        deleted[0].as_ref().unwrap();
        eventually("the topic is gone", || async {
            let admin = self.admin();
            let metadata = admin.inner().fetch_metadata(None, BROKER).unwrap();
            metadata.topics().iter().all(|found| found.name() != topic)
        })
        .await;
    }
}
