//! Records that nobody could deal with, put aside.

use std::{
    collections::HashSet,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use annals_eventstore::{
    kafka::{
        __dead_letters::{DEAD_LETTER_BYTES, Unready, prepare_dead_letters},
        TopicPolicy, TopicSpec,
    },
    metrics::Metric,
};
use chrono::{DateTime, SecondsFormat, Utc};
use rdkafka::{
    ClientConfig, Offset, TopicPartitionList,
    admin::AdminClient,
    client::DefaultClientContext,
    config::FromClientConfigAndContext,
    consumer::Consumer,
    error::KafkaError,
    message::{Header, OwnedHeaders},
    producer::{FutureProducer, FutureRecord},
    types::RDKafkaErrorCode as Code,
};

use super::{
    client::Connections,
    error::{FeedError, Loss, Lost},
    record::{Origin, RawRecord},
    source::{PAUSE, Source},
    topics::{self, BROKER_TIMEOUT, Place},
};

/// How long a record may take, from the topic or to it.
const PATIENCE: Duration = Duration::from_secs(30);

pub(super) const WRITTEN: Metric = Metric::counter(
    "annals_kafka_dead_letters_total",
    &["projection"],
    "Records that were put aside, by projection",
);

/// Why a record is put aside.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Failure {
    /// What went wrong, with its causes.
    pub reason: String,
    /// How often it was tried.
    pub attempts: u32,
    /// When it failed last.
    pub failed_at: DateTime<Utc>,
}

impl Failure {
    /// A failure of the first attempt, just now.
    pub fn new(reason: impl Into<String>) -> Self {
        Self { reason: reason.into(), attempts: 1, failed_at: Utc::now() }
    }

    /// Says how often it was tried.
    #[must_use]
    pub fn attempts(mut self, attempts: u32) -> Self {
        self.attempts = attempts;
        self
    }
}

/// Puts records aside in `{topic}.dlq`, as they are, with headers that say where they were and why.
///
/// Key, value and headers stay, so a record can be sent again; to them come
///
/// | Header | Content |
/// |---|---|
/// | `annals_dlq_topic`, `annals_dlq_partition`, `annals_dlq_offset` | where the record is |
/// | `annals_dlq_projection` | what could not deal with it |
/// | `annals_dlq_reason` | why |
/// | `annals_dlq_attempts` | how often it was tried |
/// | `annals_dlq_failed_at` | when it failed last, in RFC 3339 |
///
/// The topic is created when it is first needed, with as many partitions as the record's, and keeps what
/// it holds (`retention.ms=-1`), unless [`Source::dead_letters`] says otherwise; one that is there is held to what is
/// declared. [`Source::dead_letter_policy`] leaves creating to operators, or looking too.
///
/// A record is there once [`write`](Self::write) returns: all in-sync replicas
/// have it. What is written again, after a crash say, is there twice.
#[derive(Debug)]
pub struct DeadLetters {
    source: Source,
    projection: String,
    shared: Arc<Shared>,
}

struct Shared {
    producer: FutureProducer<Connections>,
    connection: ClientConfig,
    /// The topics that are known to be there.
    ready: Mutex<HashSet<String>>,
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared").field("ready", &self.ready).finish_non_exhaustive()
    }
}

impl DeadLetters {
    /// Those of a projection, or of whatever else reads from a source.
    ///
    /// # Errors
    /// [`FeedError::Option`] if the source has an option that no producer takes.
    pub fn new(source: &Source, projection: impl Into<String>) -> Result<Self, FeedError> {
        let connection = source.connection();
        let mut client = connection.clone();
        for (key, value) in [
            ("enable.idempotence", "true"),
            ("acks", "all"),
            ("message.timeout.ms", "30000"),
            ("message.max.bytes", DEAD_LETTER_BYTES),
            ("partitioner", "murmur2_random"),
        ] {
            client.set(key, value);
        }
        let producer = FutureProducer::from_config_and_context(&client, Connections::default())
            .map_err(|error| FeedError::option("of the producer of dead letters", error))?;
        WRITTEN.describe();
        let projection = projection.into();
        // What has not happened yet is zero, and not unknown.
        metrics::counter!(WRITTEN.name, "projection" => projection.clone()).increment(0);
        let shared = Arc::new(Shared { producer, connection, ready: Mutex::default() });
        Ok(Self { source: source.clone(), projection, shared })
    }

    /// The topic of dead letters of a topic.
    pub fn topic(topic: &str) -> String {
        format!("{topic}.dlq")
    }

    /// Puts aside the record of an event, which is read once more. Get its origin from
    /// [`Page::origin`](super::Page::origin).
    ///
    /// # Errors
    /// As [`write`](Self::write), and [`FeedError::Lost`] if the record is not there any more.
    pub async fn copy(&self, origin: &Origin, failure: &Failure) -> Result<(), FeedError> {
        let (source, origin) = (self.source.clone(), origin.clone());
        let record = blocking(move || fetch(&source, &origin)).await?;
        self.write(&record, failure).await
    }

    /// Puts a record aside. When it returns, the record is there.
    ///
    /// Dropping the future leaves it open whether the record is there.
    ///
    /// # Errors
    /// [`FeedError::Broker`] if that did not work within half a minute, or is refused; it says whether
    /// trying again may help. Where the topic is not as declared, its source is
    /// [`TopicDifferences`](annals_eventstore::kafka::TopicDifferences).
    pub async fn write(&self, record: &RawRecord, failure: &Failure) -> Result<(), FeedError> {
        let topic = Self::topic(&record.topic);
        let is_ready = || self.shared.ready().contains(&topic);
        if !is_ready() {
            let (shared, of, topic) = (self.shared.clone(), record.topic.clone(), topic.clone());
            let (spec, policy) = self.source.dead_letters.clone();
            blocking(move || shared.prepare(&of, &topic, (&spec, policy))).await?;
        }
        let headers = self.headers(record, failure);
        let mut sent: FutureRecord<'_, [u8], [u8]> = FutureRecord::to(&topic).headers(headers);
        sent.key = record.key.as_deref();
        sent.payload = record.value.as_deref();
        let delivered = self.shared.producer.send(sent, PATIENCE).await;
        if let Err((error, _)) = delivered {
            // It may have been deleted meanwhile.
            self.shared.ready().remove(&topic);
            return Err(FeedError::broker(format!("put a record aside in {topic}"), error));
        }
        metrics::counter!(WRITTEN.name, "projection" => self.projection.clone()).increment(1);
        tracing::warn!(
            topic = &*record.topic,
            partition = record.partition,
            offset = record.offset,
            projection = self.projection,
            reason = failure.reason,
            "a record was put aside"
        );
        Ok(())
    }

    fn headers(&self, record: &RawRecord, failure: &Failure) -> OwnedHeaders {
        let Failure { reason, attempts, failed_at } = failure;
        let mut headers = OwnedHeaders::new_with_capacity(record.headers.len() + 7);
        for (key, value) in &record.headers {
            headers = headers.insert(Header { key, value: value.as_deref() });
        }
        for (key, value) in [
            ("annals_dlq_topic", record.topic.to_string()),
            ("annals_dlq_partition", record.partition.to_string()),
            ("annals_dlq_offset", record.offset.to_string()),
            ("annals_dlq_projection", self.projection.clone()),
            ("annals_dlq_reason", reason.clone()),
            ("annals_dlq_attempts", attempts.to_string()),
            ("annals_dlq_failed_at", failed_at.to_rfc3339_opts(SecondsFormat::Micros, true)),
        ] {
            headers = headers.insert(Header { key, value: Some(value.as_bytes()) });
        }
        headers
    }
}

impl Shared {
    fn ready(&self) -> std::sync::MutexGuard<'_, HashSet<String>> {
        self.ready.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes sure that a topic of dead letters is there, and as declared. Blocks.
    fn prepare(
        &self,
        of: &str,
        topic: &str,
        declared: (&TopicSpec, TopicPolicy),
    ) -> Result<(), FeedError> {
        let action = || format!("see to the topic {topic}");
        let failed = |error| FeedError::broker(action(), error);
        let admin: AdminClient<DefaultClientContext> = self.connection.create().map_err(failed)?;
        let partitions = topics::partition_count(admin.inner(), of).map_err(failed)?.unwrap_or(1);
        let (config, timeout) = (&self.connection, BROKER_TIMEOUT);
        let refused = |source, retryable| FeedError::Broker { action: action(), source, retryable };
        match prepare_dead_letters(topic, declared, partitions, config, timeout) {
            Ok(()) => {
                self.ready().insert(topic.to_owned());
                Ok(())
            }
            Err(Unready::Failed(error)) => Err(failed(error)),
            Err(Unready::Changing) => Err(failed(KafkaError::AdminOp(Code::TopicAlreadyExists))),
            Err(Unready::TooFewBrokers(error)) => Err(refused(Arc::new(error), true)),
            Err(Unready::Refused(error)) => Err(refused(Arc::new(error), false)),
            Err(Unready::Differ(differences)) => {
                let action = "put records aside: the topic is not as declared".to_owned();
                Err(FeedError::Broker { action, source: Arc::new(differences), retryable: false })
            }
        }
    }
}

/// Reads one record. Blocks.
fn fetch(source: &Source, origin: &Origin) -> Result<RawRecord, FeedError> {
    let Origin { topic, partition, offset } = origin;
    let failed = |error| FeedError::broker(format!("read {topic}/{partition} again"), error);
    let consumer = source.consumer()?;
    let place = [Place { topic: topic.clone(), partition: *partition }];
    let lost = |first, end| {
        let loss = Loss::OutOfRange { first, end };
        Lost { topic: topic.to_string(), partition: *partition, wanted: *offset, loss }.into()
    };
    let first = topics::begins(&consumer, &place).map_err(failed)?[0];
    let end = topics::ends(&consumer, &place).map_err(failed)?[0];
    if !(first..end).contains(offset) {
        return Err(lost(first, end));
    }
    let mut assignment = TopicPartitionList::with_capacity(1);
    assignment.add_partition_offset(topic, *partition, Offset::Offset(*offset)).map_err(failed)?;
    consumer.assign(&assignment).map_err(failed)?;
    let started = Instant::now();
    while started.elapsed() < PATIENCE {
        match consumer.poll(PAUSE) {
            Some(Ok(message)) => {
                let record = RawRecord::of(&message);
                return if record.offset == *offset { Ok(record) } else { Err(lost(first, end)) };
            }
            Some(Err(KafkaError::PartitionEOF(_))) => return Err(lost(first, end)),
            Some(Err(error)) => return Err(failed(error)),
            None => {}
        }
    }
    Err(failed(KafkaError::MessageConsumption(Code::OperationTimedOut)))
}

/// Does what blocks on a thread for that.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, FeedError> + Send + 'static,
) -> Result<T, FeedError> {
    tokio::task::spawn_blocking(work).await.unwrap_or_else(|error| {
        Err(FeedError::Broker {
            action: "work on a thread of its own".to_owned(),
            source: Arc::new(error),
            retryable: true,
        })
    })
}
