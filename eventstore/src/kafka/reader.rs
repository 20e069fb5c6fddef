//! Looking into topics, as a consumer does: how far is a store published, and where do partitions end.

use std::{
    collections::BTreeMap,
    ops::ControlFlow,
    time::{Duration, Instant},
};

use rdkafka::{
    ClientConfig, ClientContext, Message as _, Offset, TopicPartitionList,
    config::RDKafkaLogLevel,
    consumer::{BaseConsumer, Consumer as _, ConsumerContext},
    error::{KafkaError, RDKafkaErrorCode as Code},
    message::BorrowedMessage,
    topic_partition_list::TopicPartitionListElem,
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

/// A partition of a topic.
pub(super) type Place = (String, i32);

/// What of a partition counts.
#[derive(Clone, Copy, Debug)]
pub(super) enum Extent {
    /// All that is there, with what is not committed yet.
    All,
    /// Up to where all transactions are over.
    Committed,
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

    /// Where partitions end.
    pub(super) fn ends(
        &self,
        places: &[Place],
        extent: Extent,
    ) -> Result<BTreeMap<Place, i64>, KafkaError> {
        let mut asked = TopicPartitionList::new();
        for (topic, partition) in places {
            // Asked for the offset of this time, the broker says the end.
            asked.add_partition_offset(topic, *partition, Offset::End)?;
        }
        let consumer = match extent {
            Extent::All => &self.all,
            Extent::Committed => &self.committed,
        };
        let found = consumer.offsets_for_times(asked, TIMEOUT)?;
        let end = |one: &TopicPartitionListElem<'_>| {
            one.error()?;
            let place = (one.topic().to_owned(), one.partition());
            let unknown = KafkaError::OffsetFetch(Code::UnknownPartition);
            Ok((place, one.offset().to_raw().filter(|offset| *offset >= 0).ok_or(unknown)?))
        };
        found.elements().iter().map(end).collect()
    }

    /// Whether there is a record at an offset, and its transaction is committed.
    pub(super) fn is_committed(&self, place: &Place, offset: i64) -> Result<bool, Unread> {
        let mut found = false;
        self.read(&self.committed, (&place.0, place.1, offset), |message| {
            found = message.offset() == offset;
            ControlFlow::Break(())
        })?;
        Ok(found)
    }

    /// How far partitions go, by all progress under a key that is committed.
    pub(super) fn committed_ends(
        &self,
        topic: &str,
        key: &str,
    ) -> Result<BTreeMap<Place, i64>, Unread> {
        let mut ends = BTreeMap::<Place, i64>::new();
        let (first, _) = self.committed.fetch_watermarks(topic, 0, TIMEOUT)?;
        self.read(&self.committed, (topic, 0, first), |message| {
            let record = message.payload().filter(|_| message.key() == Some(key.as_bytes()));
            // One that is not understood is complained of by those who look for the last.
            for (place, end) in record
                .and_then(|it| ProgressRecord::parse(it).ok())
                .iter()
                .flat_map(ProgressRecord::ends)
            {
                let known = ends.entry(place).or_default();
                *known = end.max(*known);
            }
            ControlFlow::Continue(())
        })?;
        Ok(ends)
    }

    /// The last progress under a key from an offset on, be it committed or not.
    pub(super) fn progress_behind(
        &self,
        topic: &str,
        key: &str,
        start: i64,
    ) -> Result<Option<ProgressRecord>, Unread> {
        Ok(self.progress_since(&self.all, topic, key, start)?.flatten())
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
            if let Some(found) = self.progress_since(&self.committed, topic, key, start)? {
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
        consumer: &BaseConsumer<Quiet>,
        topic: &str,
        key: &str,
        start: i64,
    ) -> Result<Option<Option<ProgressRecord>>, Unread> {
        let mut found: Option<Option<ProgressRecord>> = None;
        let mut failed = None;
        self.read(consumer, (topic, 0, start), |message| {
            if message.key() != Some(key.as_bytes()) {
                return ControlFlow::Continue(());
            }
            let Some(value) = message.payload() else {
                found = Some(None);
                return ControlFlow::Continue(());
            };
            match ProgressRecord::parse(value) {
                Ok(record) => {
                    let before = found.take().flatten();
                    found = Some(match before {
                        // One that was paused was late.
                        Some(before) if before.position > record.position => Some(before),
                        _ => Some(record),
                    });
                    ControlFlow::Continue(())
                }
                Err(error) => {
                    failed = Some(error);
                    ControlFlow::Break(())
                }
            }
        })?;
        failed.map_or(Ok(found), |error| Err(Unread::Record(error)))
    }

    /// Reads a partition from an offset on, to its end or until it is enough.
    fn read(
        &self,
        consumer: &BaseConsumer<Quiet>,
        (topic, partition, start): (&str, i32, i64),
        mut take: impl FnMut(&BorrowedMessage<'_>) -> ControlFlow<()>,
    ) -> Result<(), KafkaError> {
        let mut assignment = TopicPartitionList::new();
        assignment.add_partition_offset(topic, partition, Offset::Offset(start))?;
        consumer.assign(&assignment)?;
        let mut heard = Instant::now();
        loop {
            match consumer.poll(STEP) {
                Some(Ok(message)) => {
                    heard = Instant::now();
                    if take(&message).is_break() {
                        return Ok(());
                    }
                }
                Some(Err(KafkaError::PartitionEOF(_))) => return Ok(()),
                Some(Err(error)) => return Err(error),
                None if heard.elapsed() > TIMEOUT => {
                    return Err(KafkaError::MessageConsumption(Code::OperationTimedOut));
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
