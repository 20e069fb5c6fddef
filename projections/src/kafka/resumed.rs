//! Whether topics are still those that were read before. Everything here blocks.

use std::time::{Duration, Instant};

use annals_eventstore::{Position, kafka::RecordReader};
use rdkafka::{
    Message, Offset, TopicPartitionList,
    consumer::Consumer,
    error::{KafkaError, RDKafkaErrorCode as Code},
};

use super::{
    error::{FeedError, Loss, Lost},
    record,
    source::Source,
    topics::{BROKER_TIMEOUT, Place},
};

/// So many records before the place are looked at: the last ones may be ends of transactions, which nobody sees.
const LOOK_BACK: i64 = 64;
const WAIT: Duration = Duration::from_millis(10);

/// A partition that was read up to an offset.
pub(super) struct Resumed {
    pub(super) place: Place,
    /// The first offset that is there.
    pub(super) first: i64,
    /// The offset that is to be read next, behind the first.
    pub(super) wanted: i64,
    /// No event before that is behind this position.
    pub(super) last: Position,
}

/// Reads what lies before the places where partitions go on. If that lies behind what was read then, the topic was
/// deleted and made anew. Nothing must be yielded before this is known: the new topic holds events that were
/// never read at offsets that were.
///
/// # Errors
/// [`FeedError::Lost`] if a topic is another one, or what the broker fails with.
pub(super) fn check(
    source: &Source,
    records: &mut RecordReader,
    resumed: &[Resumed],
    is_abandoned: impl Fn() -> bool,
) -> Result<(), FeedError> {
    if resumed.is_empty() {
        return Ok(());
    }
    let failed = |error| FeedError::broker("look at what was read before", error);
    // It is assigned once, as all are.
    let consumer = source.consumer()?;
    let mut assignment = TopicPartitionList::with_capacity(resumed.len());
    for Resumed { place, first, wanted, .. } in resumed {
        let from = Offset::Offset((*first).max(wanted - LOOK_BACK));
        assignment.add_partition_offset(&place.topic, place.partition, from).map_err(failed)?;
    }
    consumer.assign(&assignment).map_err(failed)?;
    let mut left: Vec<&Resumed> = resumed.iter().collect();
    let started = Instant::now();
    while !left.is_empty() {
        match consumer.poll(WAIT) {
            Some(Ok(message)) => {
                let is_of = |resumed: &&Resumed| {
                    *resumed.place.topic == *message.topic()
                        && resumed.place.partition == message.partition()
                };
                let Some(of) = left.iter().position(is_of) else { continue };
                let Resumed { place, wanted, last, .. } = left[of];
                if message.offset() + 1 >= *wanted {
                    left.swap_remove(of);
                }
                let is_before = message.offset() < *wanted;
                // What is no event says nothing.
                if let (true, Ok((event, _))) = (is_before, record::read(records, &message))
                    && event.position > *last
                {
                    return Err(FeedError::Lost(Lost {
                        topic: place.topic.to_string(),
                        partition: place.partition,
                        wanted: *wanted,
                        loss: Loss::TopicReplaced,
                    }));
                }
            }
            Some(Err(KafkaError::PartitionEOF(_))) | None => {
                // The ends of transactions are passed over unseen.
                let passed = consumer.position().map_err(failed)?;
                left.retain(|Resumed { place, wanted, .. }| {
                    let found = passed.find_partition(&place.topic, place.partition);
                    !matches!(found.map(|found| found.offset()), Some(Offset::Offset(next)) if next >= *wanted)
                });
            }
            Some(Err(error)) => return Err(failed(error)),
        }
        if started.elapsed() > 3 * BROKER_TIMEOUT || is_abandoned() {
            return Err(failed(KafkaError::MessageConsumption(Code::OperationTimedOut)));
        }
    }
    Ok(())
}
