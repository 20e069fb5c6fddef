//! Looking into topics, as a consumer does: how far is a store published, and where do partitions end.

use std::time::{Duration, Instant};

use rdkafka::{
    ClientConfig, ClientContext, Message as _, Offset, TopicPartitionList,
    config::RDKafkaLogLevel,
    consumer::{BaseConsumer, Consumer as _, ConsumerContext},
    error::{KafkaError, RDKafkaErrorCode as Code},
};

use super::{
    delivery::consumer,
    progress_record::{ProgressRecord, ProgressRecordError},
    receipts,
};

/// How long the broker has to answer.
const TIMEOUT: Duration = Duration::from_secs(3);
const STEP: Duration = Duration::from_millis(50);
/// How many offsets before the end the last record of a store is looked for first. If it is not there, 16
/// times as many are looked through, and so on.
const NEAR_THE_END: i64 = 256;

/// Two consumers: what is committed, and all there is. Neither is a member of a group.
pub(super) struct Reader {
    committed: BaseConsumer<Quiet>,
    all: BaseConsumer<Quiet>,
}

/// Why nothing was found out.
#[derive(Debug)]
pub(super) enum Unread {
    /// The broker does not answer, or not yet.
    Broker(KafkaError),
    /// The record is not understood.
    Record(ProgressRecordError),
}

impl From<KafkaError> for Unread {
    fn from(error: KafkaError) -> Self {
        Self::Broker(error)
    }
}

impl Reader {
    pub(super) fn new(base: &ClientConfig) -> Result<Self, KafkaError> {
        let mut config = consumer(base);
        // A consumer needs a group's name, and none is joined, nor is anything committed.
        config.set("group.id", "annals-publisher").set("enable.auto.commit", "false");
        config.set("enable.partition.eof", "true").set("auto.offset.reset", "earliest");
        config.set("isolation.level", "read_committed");
        let committed = config.create_with_context(Quiet)?;
        config.set("isolation.level", "read_uncommitted");
        Ok(Self { committed, all: config.create_with_context(Quiet)? })
    }

    /// Topics, by their names, and how many partitions each has.
    pub(super) fn topics(
        &self,
        wanted: impl Fn(&str) -> bool,
    ) -> Result<Vec<(String, usize)>, KafkaError> {
        let metadata = self.all.fetch_metadata(None, TIMEOUT)?;
        let found = metadata.topics().iter().filter(|topic| wanted(topic.name()));
        Ok(found.map(|topic| (topic.name().to_owned(), topic.partitions().len())).collect())
    }

    /// The end of a partition, with what is not committed yet.
    pub(super) fn end(&self, topic: &str, partition: i32) -> Result<i64, KafkaError> {
        Ok(self.all.fetch_watermarks(topic, partition, TIMEOUT)?.1)
    }

    /// Up to where all transactions of a partition are over.
    pub(super) fn stable_end(&self, topic: &str, partition: i32) -> Result<i64, KafkaError> {
        Ok(self.committed.fetch_watermarks(topic, partition, TIMEOUT)?.1)
    }

    /// The last progress under a key that is committed, or none.
    ///
    /// The topic has a record for each batch, until it is compacted, so it is looked through from its end.
    pub(super) fn progress(
        &self,
        topic: &str,
        key: &str,
    ) -> Result<Option<ProgressRecord>, Unread> {
        let (first, end) = self.committed.fetch_watermarks(topic, 0, TIMEOUT)?;
        let mut reach = NEAR_THE_END;
        loop {
            let start = first.max(end.saturating_sub(reach));
            if let Some(found) = self.progress_since(topic, key, start)? {
                return Ok(found);
            }
            if start == first {
                return Ok(None);
            }
            reach = reach.saturating_mul(16);
        }
    }

    /// What is found under a key from an offset on: nothing, or a record, or its removal.
    fn progress_since(
        &self,
        topic: &str,
        key: &str,
        start: i64,
    ) -> Result<Option<Option<ProgressRecord>>, Unread> {
        let mut assignment = TopicPartitionList::new();
        assignment.add_partition_offset(topic, 0, Offset::Offset(start))?;
        self.committed.assign(&assignment)?;
        let mut heard = Instant::now();
        let mut found: Option<Option<ProgressRecord>> = None;
        loop {
            match self.committed.poll(STEP) {
                Some(Ok(message)) => {
                    heard = Instant::now();
                    if message.key() != Some(key.as_bytes()) {
                        continue;
                    }
                    let Some(value) = message.payload() else {
                        found = Some(None);
                        continue;
                    };
                    let record = ProgressRecord::parse(value).map_err(Unread::Record)?;
                    let before = found.take().flatten();
                    found = Some(match before {
                        // One that was paused was late.
                        Some(before) if before.position > record.position => Some(before),
                        _ => Some(record),
                    });
                }
                Some(Err(KafkaError::PartitionEOF(_))) => return Ok(found),
                Some(Err(error)) => return Err(error.into()),
                None if heard.elapsed() > TIMEOUT => {
                    return Err(KafkaError::MessageConsumption(Code::OperationTimedOut).into());
                }
                None => {}
            }
        }
    }
}

/// Says what there is to say for those who look for it.
struct Quiet;

impl ClientContext for Quiet {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        receipts::log(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        tracing::debug!(target: "librdkafka", %error, "{reason}");
    }
}

impl ConsumerContext for Quiet {}
