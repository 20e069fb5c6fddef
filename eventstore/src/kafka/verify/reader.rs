//! Reading topics, each partition at its own pace.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

use rdkafka::{
    ClientConfig, Offset, TopicPartitionList,
    consumer::{BaseConsumer, Consumer as _},
    error::{KafkaError, KafkaResult},
    message::Message as _,
};

use super::{Place, record::Record};
use crate::{
    error::Error,
    kafka::{delivery, producer::broker_error},
};

/// How long the broker has to answer a question.
const TIMEOUT: Duration = Duration::from_secs(20);
/// How long nothing may come where something is due.
const PATIENCE: Duration = Duration::from_secs(60);
/// So much of a partition is held ready while another one is behind.
const AHEAD_BYTES: usize = 4 << 20;
/// One that is paused goes on when no more than this is left.
const RESUME_BYTES: usize = AHEAD_BYTES / 8;
/// So many records are taken before other tasks of the thread have their turn.
const TURN: usize = 256;
const PAUSE: Duration = Duration::from_millis(1);

/// The settings of a consumer that reads what a producer with these writes.
pub(super) fn consumer_config(producer: &ClientConfig) -> ClientConfig {
    let mut config = delivery::consumer(producer);
    for (key, value) in [
        ("client.id", "annals-verify"),
        // Assigning partitions takes one. Nothing is ever committed to it.
        ("group.id", "annals-verify"),
        ("enable.auto.commit", "false"),
        ("enable.partition.eof", "true"),
        ("isolation.level", "read_committed"),
        ("auto.offset.reset", "error"),
        ("fetch.wait.max.ms", "20"),
        ("queued.max.messages.kbytes", "16384"),
    ] {
        config.set(key, value);
    }
    config
}

/// A topic that is read from its beginning to where it ended when it was opened.
pub(super) struct Reader {
    pub(super) topic: String,
    pub(super) partitions: Vec<Partition>,
    /// How many records were handed out.
    pub(super) records: u64,
    /// Where transactions were open.
    pub(super) held_back: Vec<Place>,
    /// Dropped on a thread of its own: that waits.
    consumer: Option<BaseConsumer>,
}

pub(super) struct Partition {
    /// Where it begins: above 0, records have been deleted.
    pub(super) begin: i64,
    /// Where what is committed ended when it was opened.
    end: i64,
    queue: VecDeque<Record>,
    bytes: usize,
    flow: Flow,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Flow {
    Reading,
    Paused,
    Ended,
}

impl Partition {
    /// Whether everything of it was taken.
    pub(super) fn is_read(&self) -> bool {
        self.flow == Flow::Ended && self.queue.is_empty()
    }
}

/// The topics with names like these. Blocks.
pub(super) fn names(
    config: &ClientConfig,
    is_wanted: impl Fn(&str) -> bool,
) -> Result<Vec<String>, Error> {
    let ask = || {
        let consumer: BaseConsumer = config.create()?;
        let metadata = consumer.fetch_metadata(None, TIMEOUT)?;
        let names = metadata.topics().iter().map(|topic| topic.name().to_owned());
        Ok(names.filter(|name| is_wanted(name)).collect())
    };
    ask().map_err(|error: KafkaError| broker_error("list the topics", error))
}

impl Reader {
    /// Opens a topic. `None` if there is none of this name. Blocks.
    pub(super) fn open(config: &ClientConfig, topic: &str) -> Result<Option<Self>, Error> {
        Self::try_open(config, topic)
            .map_err(|error| broker_error(format!("look at the topic {topic}"), error))
    }

    fn try_open(config: &ClientConfig, topic: &str) -> KafkaResult<Option<Self>> {
        let consumer: BaseConsumer = config.create()?;
        let metadata = consumer.fetch_metadata(Some(topic), TIMEOUT)?;
        let found = metadata.topics().iter().find(|found| found.name() == topic);
        let Some(found) = found.filter(|found| !found.partitions().is_empty()) else {
            return Ok(None);
        };
        let mut numbers: Vec<_> = found.partitions().iter().map(|one| one.id()).collect();
        numbers.sort_unstable();
        // Its ends are those of everything, also of what is not committed.
        let all: BaseConsumer =
            config.clone().set("isolation.level", "read_uncommitted").create()?;
        let (mut partitions, mut held_back) = (Vec::new(), Vec::new());
        let mut assignment = TopicPartitionList::new();
        for number in numbers {
            // The end of all first: what is committed meanwhile is not held back.
            let (_, end_of_all) = all.fetch_watermarks(topic, number, TIMEOUT)?;
            let (begin, end) = consumer.fetch_watermarks(topic, number, TIMEOUT)?;
            if end < end_of_all {
                held_back.push(Place { topic: topic.to_owned(), partition: number, offset: end });
            }
            let flow = if begin < end { Flow::Reading } else { Flow::Ended };
            if flow == Flow::Reading {
                assignment.add_partition_offset(topic, number, Offset::Offset(begin))?;
            }
            partitions.push(Partition { begin, end, queue: VecDeque::new(), bytes: 0, flow });
        }
        consumer.assign(&assignment)?;
        let topic = topic.to_owned();
        Ok(Some(Self { topic, partitions, records: 0, held_back, consumer: Some(consumer) }))
    }

    /// The next record of a partition, which stays there. `None` at its end.
    ///
    /// Cancellation safe: nothing that was read is lost.
    pub(super) async fn front(&mut self, partition: i32) -> Result<Option<&Record>, Error> {
        let index = self.index(partition);
        let mut since = Instant::now();
        while self.partitions[index].queue.is_empty() && self.partitions[index].flow != Flow::Ended
        {
            self.resume(index).map_err(|error| self.failed(error))?;
            let taken = self.take().map_err(|error| self.failed(error))?;
            if taken > 0 {
                since = Instant::now();
                tokio::task::yield_now().await;
            } else if since.elapsed() > PATIENCE {
                let action = format!("read {}[{partition}] to its end", self.topic);
                return Err(Error::Broker { action, source: "nothing comes any more".into() });
            } else {
                tokio::time::sleep(PAUSE).await;
            }
        }
        Ok(self.partitions[index].queue.front())
    }

    /// Takes the record that [`front`](Self::front) shows.
    pub(super) fn pop(&mut self, partition: i32) -> Option<Record> {
        let index = self.index(partition);
        let state = &mut self.partitions[index];
        let record = state.queue.pop_front()?;
        state.bytes -= record.bytes();
        self.records += 1;
        Some(record)
    }

    /// Whether everything of it was taken.
    pub(super) fn is_read(&self) -> bool {
        self.partitions.iter().all(Partition::is_read)
    }

    fn index(&self, partition: i32) -> usize {
        // Partitions are numbered from 0 without holes.
        usize::try_from(partition).unwrap_or_default().min(self.partitions.len() - 1)
    }

    fn failed(&self, error: KafkaError) -> Error {
        broker_error(format!("read the topic {}", self.topic), error)
    }

    /// Takes what has come, a turn of it at most. Returns how much there was.
    fn take(&mut self) -> KafkaResult<usize> {
        let Some(consumer) = &self.consumer else { return Ok(0) };
        let (mut taken, mut ahead, mut ended) = (0, Vec::new(), Vec::new());
        while taken < TURN {
            match consumer.poll(Duration::ZERO) {
                None => break,
                Some(Ok(message)) => {
                    let index = usize::try_from(message.partition()).unwrap_or_default();
                    let Some(partition) = self.partitions.get_mut(index) else { continue };
                    let offset = message.offset();
                    let record = Record::of(&message);
                    if partition.flow != Flow::Ended
                        && offset < partition.end
                        && !record.ends_transaction()
                    {
                        partition.bytes += record.bytes();
                        partition.queue.push_back(record);
                        if partition.bytes > AHEAD_BYTES && partition.flow == Flow::Reading {
                            ahead.push(index);
                            partition.flow = Flow::Paused;
                        }
                    }
                    if offset + 1 >= partition.end {
                        ended.push(index);
                    }
                }
                Some(Err(KafkaError::PartitionEOF(partition))) => {
                    ended.extend(usize::try_from(partition));
                }
                Some(Err(error)) if is_passing(&error) => break,
                Some(Err(error)) => return Err(error),
            }
            taken += 1;
        }
        for index in ended.iter().copied() {
            if let Some(partition) = self.partitions.get_mut(index) {
                partition.flow = Flow::Ended;
            }
        }
        // Also those at their end: a topic in use grows.
        ahead.extend(ended);
        if !ahead.is_empty() {
            consumer.pause(&self.list(&ahead))?;
        }
        Ok(taken)
    }

    fn resume(&mut self, index: usize) -> KafkaResult<()> {
        let Some(consumer) = &self.consumer else { return Ok(()) };
        let partition = &self.partitions[index];
        if partition.flow == Flow::Paused && partition.bytes <= RESUME_BYTES {
            consumer.resume(&self.list(&[index]))?;
            self.partitions[index].flow = Flow::Reading;
        }
        Ok(())
    }

    fn list(&self, indexes: &[usize]) -> TopicPartitionList {
        let mut list = TopicPartitionList::new();
        for index in indexes {
            list.add_partition(&self.topic, i32::try_from(*index).unwrap_or_default());
        }
        list
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        if let Some(consumer) = self.consumer.take() {
            std::thread::spawn(|| drop(consumer));
        }
    }
}

/// What the client goes on after by itself.
fn is_passing(error: &KafkaError) -> bool {
    use rdkafka::types::RDKafkaErrorCode as Code;
    matches!(
        error.rdkafka_error_code(),
        Some(
            Code::AllBrokersDown
                | Code::BrokerTransportFailure
                | Code::OperationTimedOut
                | Code::Resolve
                | Code::CoordinatorNotAvailable
                | Code::CoordinatorLoadInProgress
                | Code::NotCoordinator
                | Code::GroupAuthorizationFailed
        )
    )
}
