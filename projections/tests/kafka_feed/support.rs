//! A context of a test's own, and a publisher whose every record the test writes by hand.

use std::{collections::BTreeMap, time::Duration};

use annals_eventstore::{Position, kafka::ProgressRecord};
use annals_projections::kafka::{FeedError, Page, Resume, Source, Start, Subscription};
use rdkafka::{
    ClientConfig, Offset, TopicPartitionList,
    admin::{AdminClient, AdminOptions, NewTopic, ResourceSpecifier, TopicReplication},
    client::DefaultClientContext,
    consumer::{BaseConsumer, Consumer},
    message::{Header, Headers, Message, OwnedHeaders},
    producer::{FutureProducer, FutureRecord, Producer},
};
use uuid::Uuid;

/// What everything waits for at most. It bounds a hang.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

pub(crate) struct Context {
    pub(crate) name: String,
    brokers: String,
    admin: AdminClient<DefaultClientContext>,
    producer: FutureProducer,
}

impl Context {
    /// A context, with the topic in which its publisher tells how far it has come.
    pub(crate) async fn new() -> Self {
        let context = Self::unpublished();
        context.create_compacted(&ProgressRecord::topic(&context.name)).await;
        context
    }

    pub(crate) fn unpublished() -> Self {
        let brokers = std::env::var("KAFKA_BROKERS").unwrap_or_else(|_| {
            panic!("KAFKA_BROKERS is not set; `cargo xtask test` starts the services and sets it")
        });
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", &brokers);
        let admin = config.create().unwrap();
        let producer = config.set("linger.ms", "0").create().unwrap();
        Self { name: format!("feed.{}", Uuid::now_v7().simple()), brokers, admin, producer }
    }

    pub(crate) fn source(&self) -> Source {
        Source::new(&self.brokers, &self.name).unwrap()
    }

    pub(crate) fn topic(&self, category: &str) -> String {
        format!("{}.{category}.events.v1", self.name)
    }

    pub(crate) async fn create(&self, category: &str, partitions: i32) {
        self.create_topic(&self.topic(category), partitions, "delete").await;
    }

    async fn create_compacted(&self, topic: &str) {
        self.create_topic(topic, 1, "compact").await;
    }

    pub(crate) async fn create_topic(&self, topic: &str, partitions: i32, cleanup: &str) {
        let new = NewTopic::new(topic, partitions, TopicReplication::Fixed(1))
            .set("cleanup.policy", cleanup);
        // One that was deleted a moment ago may still be on its way out.
        for _ in 0..100 {
            let created = self.admin.create_topics([&new], &AdminOptions::new()).await.unwrap();
            if created[0].is_ok() {
                return self.wait_until_known(topic).await;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        panic!("{topic} cannot be created");
    }

    /// Brokers learn of a topic a moment after it was created.
    async fn wait_until_known(&self, topic: &str) {
        for _ in 0..300 {
            let metadata = self.admin.inner().fetch_metadata(Some(topic), PATIENCE).unwrap();
            let partitions = metadata.topics()[0].partitions();
            if !partitions.is_empty() && partitions.iter().all(|known| known.leader() >= 0) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        panic!("{topic} does not become known");
    }

    /// A property of a topic, by Kafka's name.
    pub(crate) async fn property(&self, topic: &str, property: &str) -> String {
        let topic = ResourceSpecifier::Topic(topic);
        let described = self.admin.describe_configs([&topic], &AdminOptions::new()).await.unwrap();
        let resource = described.into_iter().next().unwrap().unwrap();
        resource.get(property).unwrap().value.clone().unwrap()
    }

    /// How many partitions a topic has, if there is one.
    pub(crate) fn partitions(&self, topic: &str) -> Option<usize> {
        let all = self.admin.inner().fetch_metadata(None, PATIENCE).unwrap();
        let found = all.topics().iter().find(|found| found.name() == topic);
        found.map(|found| found.partitions().len())
    }

    pub(crate) async fn delete(&self, category: &str) {
        let topic = self.topic(category);
        let deleted = self.admin.delete_topics(&[&topic], &AdminOptions::new()).await.unwrap();
        deleted[0].as_ref().unwrap();
    }

    /// Makes a partition forget all records before an offset, as retention does.
    pub(crate) async fn forget(&self, category: &str, partition: i32, before: i64) {
        let mut offsets = TopicPartitionList::new();
        let offset = Offset::Offset(before);
        offsets.add_partition_offset(&self.topic(category), partition, offset).unwrap();
        let deleted = self.admin.delete_records(&offsets, &AdminOptions::new()).await.unwrap();
        deleted.elements()[0].error().unwrap();
    }

    /// Sends an event. Returns its offset.
    pub(crate) async fn send(&self, event: &Sent<'_>) -> i64 {
        let context = &self.name;
        let Sent { category, key, partition, position, payload } = event;
        let headers = [
            ("ce_id", Uuid::now_v7().to_string()),
            ("ce_source", format!("/{context}/{category}")),
            ("ce_type", format!("{context}.{category}.noted.v1")),
            ("ce_subject", (*key).to_owned()),
            ("ce_time", "2026-01-02T03:04:05.000006Z".to_owned()),
            ("ce_sequence", format!("{position:020}")),
            ("ce_streamversion", "1".to_owned()),
        ];
        let headers = headers.iter().fold(OwnedHeaders::new(), |headers, (key, value)| {
            headers.insert(Header { key, value: Some(value) })
        });
        let topic = self.topic(category);
        let record = FutureRecord::to(&topic).key(*key).payload(*payload);
        self.deliver(record.partition(*partition).headers(headers)).await
    }

    /// Sends a record that is no event.
    pub(crate) async fn send_raw(&self, category: &str, partition: i32, payload: &str) -> i64 {
        let topic = self.topic(category);
        let headers = OwnedHeaders::new().insert(Header { key: "x", value: Some("y") });
        let record = FutureRecord::to(&topic).key("k").payload(payload);
        self.deliver(record.partition(partition).headers(headers)).await
    }

    async fn deliver(&self, record: FutureRecord<'_, str, str>) -> i64 {
        let delivered = self.producer.send(record, PATIENCE).await;
        delivered.map_err(|(error, _)| error).unwrap().offset
    }

    /// Says that all up to a position is published, and where partitions that were touched end.
    pub(crate) async fn tell(&self, position: i64, touched: &[(&str, i32, i64)]) {
        self.tell_as("test", position, touched).await;
    }

    pub(crate) async fn tell_as(&self, store: &str, position: i64, touched: &[(&str, i32, i64)]) {
        let record = touched.iter().fold(
            ProgressRecord::new(Position::new(position)),
            |record, (category, partition, next)| {
                record.with_offset(self.topic(category), *partition, *next)
            },
        );
        let value = String::from_utf8(record.to_json()).unwrap();
        let (topic, key) =
            (ProgressRecord::topic(&self.name), format!("{}.publisher.{store}", self.name));
        self.deliver(FutureRecord::to(&topic).key(&*key).payload(&*value)).await;
    }

    /// Publishes a batch: events of (category, partition, position), and the word that they are there.
    pub(crate) async fn publish(&self, events: &[(&str, i32, i64)]) {
        let mut touched = BTreeMap::new();
        for (category, partition, position) in events {
            let next = 1 + self.send(&sent(category, *partition, *position)).await;
            touched.insert((*category, *partition), next);
        }
        let touched =
            touched.into_iter().map(|((category, partition), next)| (category, partition, next));
        let last = events.iter().map(|(_, _, position)| *position).max();
        self.tell(last.unwrap(), &touched.collect::<Vec<_>>()).await;
    }

    pub(crate) fn brokers(&self) -> &str {
        &self.brokers
    }

    fn consumer(&self, group: &str) -> BaseConsumer {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", &self.brokers).set("group.id", group);
        config.set("enable.auto.commit", "false").create().unwrap()
    }

    /// Waits until a publisher has told how far it is.
    pub(crate) async fn wait_until_published(&self) {
        let (consumer, topic) = (self.consumer("annals-tests"), ProgressRecord::topic(&self.name));
        let published = async {
            while !consumer.fetch_watermarks(&topic, 0, PATIENCE).is_ok_and(|(_, end)| end > 0) {
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        };
        tokio::time::timeout(PATIENCE, published).await.expect("something is published");
    }

    /// The offset that a group has committed, where it has.
    pub(crate) fn committed(&self, name: &str, topic: &str, partition: i32) -> Option<i64> {
        let mut asked = TopicPartitionList::new();
        asked.add_partition(topic, partition);
        let consumer = self.consumer(&format!("{}.{name}", self.name));
        let found = consumer.committed_offsets(asked, PATIENCE).unwrap();
        match found.elements()[0].offset() {
            Offset::Offset(offset) => Some(offset),
            _ => None,
        }
    }

    /// All that a topic holds, and how many partitions it has.
    pub(crate) fn content(&self, topic: &str) -> (Vec<Content>, usize) {
        let consumer = self.consumer("annals-tests");
        let metadata = consumer.fetch_metadata(Some(topic), PATIENCE).unwrap();
        let partitions = metadata.topics()[0].partitions().len();
        let (mut assignment, mut missing) = (TopicPartitionList::new(), 0);
        for partition in 0..partitions as i32 {
            let (low, high) = consumer.fetch_watermarks(topic, partition, PATIENCE).unwrap();
            missing += high - low;
            assignment.add_partition_offset(topic, partition, Offset::Beginning).unwrap();
        }
        consumer.assign(&assignment).unwrap();
        let mut content = Vec::new();
        while missing > 0 {
            let message = consumer.poll(PATIENCE).expect("a record in time").unwrap();
            missing -= 1;
            let headers = message.headers().unwrap().iter();
            content.push(Content {
                partition: message.partition(),
                key: message.key().unwrap().to_vec(),
                value: message.payload().unwrap().to_vec(),
                headers: headers
                    .map(|header| (header.key.to_owned(), header.value.unwrap().to_vec()))
                    .collect(),
            });
        }
        (content, partitions)
    }

    /// A producer of transactions, as the publisher that publishes exactly once has it.
    pub(crate) fn transactional(&self) -> FutureProducer {
        let producer: FutureProducer = ClientConfig::new()
            .set("bootstrap.servers", &self.brokers)
            .set("transactional.id", format!("{}.publisher.test", self.name))
            .create()
            .unwrap();
        producer.init_transactions(PATIENCE).unwrap();
        producer
    }

    /// The same with another producer.
    pub(crate) fn with_producer(&self, producer: FutureProducer) -> Self {
        let (name, brokers) = (self.name.clone(), self.brokers.clone());
        let admin = ClientConfig::new().set("bootstrap.servers", &brokers).create().unwrap();
        Self { name, brokers, admin, producer }
    }
}

/// A record as it is in a topic.
pub(crate) struct Content {
    pub(crate) partition: i32,
    pub(crate) key: Vec<u8>,
    pub(crate) value: Vec<u8>,
    pub(crate) headers: Vec<(String, Vec<u8>)>,
}

/// An event as a test sends it.
pub(crate) struct Sent<'a> {
    pub(crate) category: &'a str,
    pub(crate) key: &'a str,
    pub(crate) partition: i32,
    pub(crate) position: i64,
    pub(crate) payload: &'a str,
}

pub(crate) fn sent<'a>(category: &'a str, partition: i32, position: i64) -> Sent<'a> {
    Sent { category, key: "k", partition, position, payload: r#"{"n":1}"# }
}

/// The next page, or what went wrong, in time.
pub(crate) async fn next(subscription: &mut Subscription) -> Result<Page, FeedError> {
    let status = subscription.status();
    let next = tokio::time::timeout(PATIENCE, subscription.next()).await;
    next.unwrap_or_else(|_| panic!("no page in time: {:?}", *status.borrow()))
}

/// Takes pages until one reaches a position: the positions of all events, and where to go on.
pub(crate) async fn up_to(subscription: &mut Subscription, end: i64) -> (Vec<i64>, Resume) {
    let mut positions = Vec::new();
    loop {
        let page = next(subscription).await.unwrap();
        positions.extend(page.events.iter().map(|event| event.position.get()));
        assert!(page.end.get() <= end, "{} is beyond {end}", page.end);
        if page.end.get() == end {
            return (positions, page.resume());
        }
    }
}

/// True if no page comes for a good while.
pub(crate) async fn is_waiting(subscription: &mut Subscription) -> bool {
    tokio::time::timeout(Duration::from_millis(700), subscription.next()).await.is_err()
}

/// From the first event on.
pub(crate) fn beginning() -> Start {
    Start::At(Resume::default())
}
