//! Records of Kafka, delivered again.

use std::time::Duration;

use rdkafka::{
    ClientConfig, Offset, TopicPartitionList,
    consumer::{BaseConsumer, Consumer as _},
    error::KafkaError,
    message::{Message as _, Timestamp},
    producer::{BaseProducer, BaseRecord, Producer as _},
    types::RDKafkaErrorCode,
};

use super::{Fault, Faults};
use crate::error::Error;

/// How long the broker has to answer a question, and for the next record.
const TIMEOUT: Duration = Duration::from_secs(20);

/// Puts records of a topic into it again, at the rate of [`Repetition`](Fault::Repetition), as a publisher does that lost an
/// answer and publishes at least once. Each comes behind all that its partition held, with the same key, value and
/// headers. Returns how many they are.
///
/// Who consumes the topic must not notice: workers that are fed by it do not. [`verify`](crate::kafka::verify) tells of each.
///
/// Not cancellation safe: what was begun goes on.
///
/// # Errors
/// [`Error::Broker`] if the broker does not answer, or there is no such topic.
pub async fn repeat_records(brokers: &str, topic: &str, faults: &Faults) -> Result<u64, Error> {
    let (brokers, topic, faults) = (brokers.to_owned(), topic.to_owned(), faults.clone());
    // The client waits.
    let repeating = tokio::task::spawn_blocking(move || repeat(&brokers, &topic, &faults));
    match repeating.await {
        Ok(repeated) => repeated.map_err(|source| Error::Broker {
            action: "repeat records".to_owned(),
            source: Box::new(source),
        }),
        // The runtime is shutting down.
        Err(_) => Err(Error::Closed),
    }
}

fn repeat(brokers: &str, topic: &str, faults: &Faults) -> Result<u64, KafkaError> {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", brokers).set("client.id", "annals-faults");
    let consumer: BaseConsumer = config
        .clone()
        // Assigning partitions takes one. Nothing is ever committed to it.
        .set("group.id", "annals-faults")
        .set("enable.auto.commit", "false")
        .set("enable.partition.eof", "true")
        .set("isolation.level", "read_committed")
        .create()?;
    let producer: BaseProducer = config.create()?;
    let metadata = consumer.fetch_metadata(Some(topic), TIMEOUT)?;
    let partitions = metadata.topics().iter().flat_map(|found| found.partitions());
    let mut ends = std::collections::HashMap::new();
    let mut assignment = TopicPartitionList::new();
    for partition in partitions.map(|partition| partition.id()) {
        let (begin, end) = consumer.fetch_watermarks(topic, partition, TIMEOUT)?;
        if begin < end {
            assignment.add_partition_offset(topic, partition, Offset::Offset(begin))?;
            ends.insert(partition, end);
        }
    }
    consumer.assign(&assignment)?;
    let mut repeated = 0;
    while !ends.is_empty() {
        let record = match consumer.poll(TIMEOUT) {
            Some(Ok(record)) => record,
            Some(Err(KafkaError::PartitionEOF(partition))) => {
                ends.remove(&partition);
                continue;
            }
            Some(Err(error)) => return Err(error),
            None => return Err(KafkaError::NoMessageReceived),
        };
        let (partition, offset) = (record.partition(), record.offset());
        // What comes behind the end are our own.
        if ends.get(&partition).is_none_or(|end| offset >= *end) {
            ends.remove(&partition);
            continue;
        }
        if !faults.happens(Fault::Repetition, topic, &format!("{partition} {offset}")) {
            continue;
        }
        let mut again = BaseRecord::to(topic).partition(partition);
        again.key = record.key();
        again.payload = record.payload();
        again.headers = record.headers().map(|headers| headers.detach());
        again.timestamp = match record.timestamp() {
            Timestamp::NotAvailable => None,
            Timestamp::CreateTime(time) | Timestamp::LogAppendTime(time) => Some(time),
        };
        send(&producer, again)?;
        repeated += 1;
    }
    producer.flush(TIMEOUT)?;
    Ok(repeated)
}

/// Sends a record, once there is room for it.
fn send(producer: &BaseProducer, mut record: BaseRecord<'_, [u8], [u8]>) -> Result<(), KafkaError> {
    loop {
        match producer.send(record) {
            Ok(()) => return Ok(()),
            Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), unsent)) => {
                producer.poll(Duration::from_millis(10));
                record = unsent;
            }
            Err((error, _)) => return Err(error),
        }
    }
}
