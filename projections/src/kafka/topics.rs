//! What topics there are and where they begin and end. Everything here blocks.

use std::{sync::Arc, time::Duration};

use rdkafka::{
    ClientContext, Offset, TopicPartitionList,
    client::Client,
    consumer::{BaseConsumer, Consumer, ConsumerContext},
    error::{KafkaError, RDKafkaErrorCode as Code},
};

/// How long a broker has to answer a question.
pub(super) const BROKER_TIMEOUT: Duration = Duration::from_secs(3);

/// A partition of a topic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) topic: Arc<str>,
    pub(super) partition: i32,
}

/// How many partitions a topic has; `None` if there is no such topic.
pub(super) fn partitions<C: ConsumerContext>(
    consumer: &BaseConsumer<C>,
    topic: &str,
) -> Result<Option<i32>, KafkaError> {
    partition_count(consumer.client(), topic)
}

/// The same by way of any client.
pub(super) fn partition_count<C: ClientContext>(
    client: &Client<C>,
    topic: &str,
) -> Result<Option<i32>, KafkaError> {
    let metadata = client.fetch_metadata(Some(topic), BROKER_TIMEOUT)?;
    let Some(found) = metadata.topics().iter().find(|found| found.name() == topic) else {
        return Ok(None);
    };
    match found.error().map(Code::from) {
        None => Ok(i32::try_from(found.partitions().len()).ok().filter(|count| *count > 0)),
        Some(Code::UnknownTopicOrPartition | Code::UnknownTopic) => Ok(None),
        Some(code) => Err(KafkaError::MetadataFetch(code)),
    }
}

/// The first offsets of partitions.
pub(super) fn begins<C: ConsumerContext>(
    consumer: &BaseConsumer<C>,
    places: &[Place],
) -> Result<Vec<i64>, KafkaError> {
    offsets(consumer, places, Offset::Beginning)
}

/// The offsets up to which partitions can be read: what lies before is committed, or aborted for good.
pub(super) fn ends<C: ConsumerContext>(
    consumer: &BaseConsumer<C>,
    places: &[Place],
) -> Result<Vec<i64>, KafkaError> {
    offsets(consumer, places, Offset::End)
}

fn offsets<C: ConsumerContext>(
    consumer: &BaseConsumer<C>,
    places: &[Place],
    of: Offset,
) -> Result<Vec<i64>, KafkaError> {
    if places.is_empty() {
        return Ok(Vec::new());
    }
    let mut asked = TopicPartitionList::with_capacity(places.len());
    for Place { topic, partition } in places {
        // Beginning and end are times, as far as the broker is concerned. It minds the isolation level.
        asked.add_partition_offset(topic, *partition, of)?;
    }
    let found = consumer.offsets_for_times(asked, BROKER_TIMEOUT)?;
    let offset = |Place { topic, partition }: &Place| {
        let found = found
            .find_partition(topic, *partition)
            .ok_or(KafkaError::OffsetFetch(Code::UnknownPartition))?;
        found.error()?;
        match found.offset() {
            Offset::Offset(offset) => Ok(offset),
            _ => Err(KafkaError::OffsetFetch(Code::NoOffset)),
        }
    };
    places.iter().map(offset).collect()
}
