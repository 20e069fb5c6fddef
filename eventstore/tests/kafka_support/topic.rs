//! The content of a topic, read as any consumer would read it.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, Instant},
};

use annals_eventstore::{
    MetadataFields, Position, Recorded,
    kafka::{ProgressRecord, RecordReader},
};
use rdkafka::{
    ClientConfig, Message as _, Offset, TopicPartitionList,
    consumer::{BaseConsumer, Consumer},
    error::KafkaError,
    message::{BorrowedMessage, Headers as _},
};

use super::PARTITIONS;

#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Message {
    pub(crate) partition: i32,
    pub(crate) key: Vec<u8>,
    pub(crate) payload: Vec<u8>,
    pub(crate) headers: BTreeMap<String, String>,
}

impl Message {
    pub(crate) fn position(&self) -> Position {
        Position::new(self.headers["ce_sequence"].parse().unwrap())
    }

    /// The event that it was made of, as a consumer learns of it.
    pub(crate) fn read(&self, context: &str) -> Recorded {
        let headers = self.headers.iter().map(|(name, value)| (&**name, Some(value.as_bytes())));
        RecordReader::new(context).read(Some(&self.key), Some(&self.payload), headers).unwrap()
    }

    /// What should be published of an event.
    pub(crate) fn of(event: &Recorded, context: &str) -> Self {
        let (category, key) = (event.stream.category(), event.stream.key());
        let time =
            |time: chrono::DateTime<chrono::Utc>| time.format("%Y-%m-%dT%H:%M:%S%.6fZ").to_string();
        let mut headers = BTreeMap::from([
            ("content-type", "application/json".to_owned()),
            ("ce_specversion", "1.0".to_owned()),
            ("ce_id", event.id.to_string()),
            ("ce_source", format!("/{context}/{category}")),
            (
                "ce_type",
                format!("{context}.{category}.{}.v{}", event.event_type, event.schema_version),
            ),
            ("ce_subject", key.to_owned()),
            ("ce_partitionkey", key.to_owned()),
            ("ce_time", time(event.occurred_at.unwrap_or(event.recorded_at))),
            ("ce_sequence", format!("{:020}", event.position.get())),
            ("ce_streamversion", event.version.to_string()),
        ]);
        let recorded = event.occurred_at.map(|_| time(event.recorded_at));
        headers.extend(recorded.map(|time| ("ce_recordedtime", time)));
        let metadata = MetadataFields::from(event.metadata.clone());
        for (name, value) in [
            ("ce_correlationid", metadata.correlation_id),
            ("ce_causationid", metadata.causation_id),
            ("traceparent", metadata.traceparent),
        ] {
            headers.extend(value.map(|value| (name, value)));
        }
        Self {
            partition: java_partition(key, PARTITIONS.into()),
            key: key.as_bytes().to_vec(),
            payload: event.event.as_bytes().to_vec(),
            headers: headers.into_iter().map(|(name, value)| (name.to_owned(), value)).collect(),
        }
    }

    /// Compares it with what is recorded: bytes, key, place, headers.
    pub(crate) fn assert_is(&self, event: &Recorded, context: &str) {
        assert_eq!(*self, Self::of(event, context));
        let mut public = event.clone();
        public.metadata.actor = None;
        public.metadata.custom.clear();
        assert_eq!(self.read(context), public);
    }
}

fn client_of(brokers: &str) -> ClientConfig {
    let mut client = ClientConfig::new();
    client.set("bootstrap.servers", brokers);
    client
}

/// Everything that is committed in a topic, each partition in order. None, if there is no such topic.
pub(crate) fn read_topic(brokers: &str, topic: &str) -> Vec<Message> {
    read_topic_as(client_of(brokers), topic)
}

/// The same with settings of its own.
pub(crate) fn read_topic_as(client: ClientConfig, topic: &str) -> Vec<Message> {
    let mut messages = Vec::new();
    read_events(client, topic, |message| {
        let headers = message.headers().unwrap().iter().map(|header| {
            let value = String::from_utf8(header.value.unwrap().to_vec()).unwrap();
            (header.key.to_owned(), value)
        });
        messages.push(Message {
            partition: message.partition(),
            key: message.key().unwrap().to_vec(),
            payload: message.payload().unwrap().to_vec(),
            headers: headers.collect(),
        });
    });
    messages
}

/// Where the events of a topic are: position, partition, offset.
pub(crate) fn read_places(brokers: &str, topic: &str) -> Vec<(Position, i32, i64)> {
    let mut places = Vec::new();
    read_events(client_of(brokers), topic, |message| {
        let headers = message.headers().unwrap();
        let position = headers.iter().find(|header| header.key == "ce_sequence").unwrap();
        let position = std::str::from_utf8(position.value.unwrap()).unwrap().parse().unwrap();
        places.push((Position::new(position), message.partition(), message.offset()));
    });
    places
}

/// How many partitions a topic has; 0 if there is no such topic.
pub(crate) fn partitions(brokers: &str, topic: &str) -> usize {
    let consumer = consumer(client_of(brokers), "read_committed");
    let metadata = consumer.fetch_metadata(None, TIMEOUT).unwrap();
    let found = metadata.topics().iter().find(|found| found.name() == topic);
    found.map_or(0, |topic| topic.partitions().len())
}

/// What the publishers of a context have told, one after the other, with what is said of which store.
pub(crate) fn read_progress(brokers: &str, context: &str) -> Vec<(String, ProgressRecord)> {
    let mut told = Vec::new();
    read_records(client_of(brokers), &ProgressRecord::topic(context), |message| {
        let key = String::from_utf8(message.key().unwrap().to_vec()).unwrap();
        told.push((key, ProgressRecord::parse(message.payload().unwrap()).unwrap()));
    });
    told
}

/// Where a partition ends, with what is not committed.
pub(crate) fn end_of(brokers: &str, topic: &str, partition: i32) -> i64 {
    let consumer = consumer(client_of(brokers), "read_uncommitted");
    end_at(&consumer, topic, partition)
}

/// Where a partition ends for a consumer. A topic that is being created is known before its partitions are there.
fn end_at(consumer: &BaseConsumer, topic: &str, partition: i32) -> i64 {
    use rdkafka::types::RDKafkaErrorCode as Code;
    let start = Instant::now();
    loop {
        match consumer.fetch_watermarks(topic, partition, TIMEOUT) {
            Ok((_, end)) => return end,
            Err(KafkaError::MetadataFetch(
                Code::UnknownTopicOrPartition
                | Code::NotLeaderForPartition
                | Code::LeaderNotAvailable
                | Code::UnknownPartition,
            )) if start.elapsed() < TIMEOUT => std::thread::sleep(Duration::from_millis(20)),
            Err(error) => panic!("{topic}/{partition}: {error}"),
        }
    }
}

/// Whether there is an open transaction in a topic whose name begins like this.
pub(crate) fn is_transaction_open(brokers: &str, beginning: &str) -> bool {
    let (all, committed) = (
        consumer(client_of(brokers), "read_uncommitted"),
        consumer(client_of(brokers), "read_committed"),
    );
    let metadata = all.fetch_metadata(None, TIMEOUT).unwrap();
    metadata.topics().iter().filter(|topic| topic.name().starts_with(beginning)).any(|topic| {
        topic.partitions().iter().any(|partition| {
            // In this order: it may go on between the two.
            let end = end_at(&all, topic.name(), partition.id());
            end_at(&committed, topic.name(), partition.id()) < end
        })
    })
}

const TIMEOUT: Duration = Duration::from_secs(20);

fn consumer(mut client: ClientConfig, isolation: &str) -> BaseConsumer {
    client
        .set("group.id", "annals-tests")
        .set("enable.auto.commit", "false")
        .set("enable.partition.eof", "true")
        .set("isolation.level", isolation)
        .create()
        .unwrap()
}

/// Reads the events of a topic to its end, and passes over what ends a transaction that a broker has left
/// open, as every consumer does.
fn read_events(client: ClientConfig, topic: &str, mut take: impl FnMut(&BorrowedMessage<'_>)) {
    read_records(client, topic, |message| {
        let mut headers = message.headers().unwrap().iter();
        if !headers.any(|header| header.key == "annals-ends-transaction") {
            take(message);
        }
    });
}

/// Reads a topic to its end, as it is when nothing is written to it any more.
fn read_records(client: ClientConfig, topic: &str, mut take: impl FnMut(&BorrowedMessage<'_>)) {
    let consumer = consumer(client, "read_committed");
    let metadata = consumer.fetch_metadata(None, TIMEOUT).unwrap();
    let found = metadata.topics().iter().find(|found| found.name() == topic);
    let mut assignment = TopicPartitionList::new();
    let mut open = BTreeSet::new();
    for partition in found.iter().flat_map(|topic| topic.partitions()) {
        assignment.add_partition_offset(topic, partition.id(), Offset::Beginning).unwrap();
        open.insert(partition.id());
    }
    consumer.assign(&assignment).unwrap();
    while !open.is_empty() {
        match consumer.poll(TIMEOUT).expect("a message in time") {
            Ok(message) => take(&message),
            Err(KafkaError::PartitionEOF(partition)) => {
                open.remove(&partition);
            }
            Err(error) => panic!("{error}"),
        }
    }
}

/// Where a Java client puts a key: `toPositive(murmur2(key)) % partitions`.
pub(crate) fn java_partition(key: &str, partitions: i32) -> i32 {
    (murmur2(key.as_bytes()) & 0x7fff_ffff) as i32 % partitions
}

/// `org.apache.kafka.common.utils.Utils.murmur2`, written after the Java source.
fn murmur2(data: &[u8]) -> u32 {
    const M: u32 = 0x5bd1_e995;
    let mut hash = 0x9747_b28c ^ data.len() as u32;
    let words = data.chunks_exact(4);
    let rest = words.remainder();
    for word in words {
        let mut k = u32::from_le_bytes(word.try_into().unwrap()).wrapping_mul(M);
        k ^= k >> 24;
        hash = hash.wrapping_mul(M) ^ k.wrapping_mul(M);
    }
    for (index, byte) in rest.iter().enumerate().rev() {
        hash ^= u32::from(*byte) << (8 * index);
    }
    if !rest.is_empty() {
        hash = hash.wrapping_mul(M);
    }
    hash = (hash ^ (hash >> 13)).wrapping_mul(M);
    hash ^ (hash >> 15)
}

/// The values of Kafka's own unit test, `UtilsTest.testMurmur2`.
#[test]
fn murmur2_is_that_of_java() {
    for (data, hash) in [
        ("21", -973_932_308),
        ("foobar", -790_332_482),
        ("a-little-bit-long-string", -985_981_536),
        ("a-little-bit-longer-string", -1_486_304_829),
        ("lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", -58_897_971),
        ("abc", 479_470_107),
    ] {
        assert_eq!(murmur2(data.as_bytes()) as i32, hash, "{data}");
    }
}
