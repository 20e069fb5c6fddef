//! The broker that events are published to: topics on it, and what is in them.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use anyhow::{Context, Result, bail};
use rdkafka::{
    ClientConfig, Message as _, Offset, TopicPartitionList,
    admin::{AdminClient, AdminOptions, NewTopic, TopicReplication},
    client::DefaultClientContext,
    consumer::{BaseConsumer, Consumer},
    error::KafkaError,
    message::{BorrowedMessage, Headers as _},
};
use uuid::Uuid;

/// How long the broker has to answer, and to send the next message of a topic.
const PATIENCE: Duration = Duration::from_secs(20);

/// A broker, and what this run has made on it.
pub(crate) struct Broker {
    addresses: String,
    admin: AdminClient<DefaultClientContext>,
    prefix: String,
}

/// A message as it is in a topic.
#[derive(Debug)]
pub(crate) struct Message {
    pub(crate) key: Vec<u8>,
    pub(crate) payload: Vec<u8>,
    pub(crate) headers: Vec<(String, Vec<u8>)>,
}

impl Broker {
    /// That of `KAFKA_BROKERS`, if it names one.
    pub(crate) fn from_environment() -> Result<Option<Self>> {
        let addresses = std::env::var("KAFKA_BROKERS").unwrap_or_default();
        if addresses.trim().is_empty() {
            return Ok(None);
        }
        let admin = ClientConfig::new().set("bootstrap.servers", &addresses).create()?;
        let prefix = format!("bench-{}-", std::process::id());
        Ok(Some(Self { addresses, admin, prefix }))
    }

    /// `host:port,...`
    pub(crate) fn addresses(&self) -> &str {
        &self.addresses
    }

    /// The name of a context that nobody has published to.
    pub(crate) fn context(&self) -> String {
        format!("{}{}", self.prefix, Uuid::now_v7().simple())
    }

    /// Makes a topic, of a name that begins with a [`context`](Self::context).
    pub(crate) async fn create_topic(&self, topic: &str, partitions: i32) -> Result<()> {
        let new = NewTopic::new(topic, partitions, TopicReplication::Fixed(-1));
        let made = self.admin.create_topics([&new], &AdminOptions::new()).await?;
        for made in made {
            made.map_err(|(topic, code)| anyhow::anyhow!("cannot create {topic}: {code}"))?;
        }
        Ok(())
    }

    /// Deletes all topics of this run.
    pub(crate) async fn delete_topics(&self) -> Result<()> {
        let metadata = self.admin.inner().fetch_metadata(None, PATIENCE)?;
        let names = metadata.topics().iter().map(|topic| topic.name());
        let own: Vec<_> = names.filter(|name| name.starts_with(&self.prefix)).collect();
        if !own.is_empty() {
            self.admin.delete_topics(&own, &AdminOptions::new()).await?;
        }
        Ok(())
    }

    /// Everything that is committed in a topic, in the order of the log.
    pub(crate) async fn messages(&self, topic: String) -> Result<Arc<[Message]>> {
        let read = |message: &BorrowedMessage<'_>| {
            let headers = message.headers().into_iter().flat_map(|headers| headers.iter());
            let bytes = |part: Option<&[u8]>| part.unwrap_or_default().to_vec();
            let headers = headers.map(|header| (header.key.to_owned(), bytes(header.value)));
            Ok((
                position(message)?,
                Message {
                    key: bytes(message.key()),
                    payload: bytes(message.payload()),
                    headers: headers.collect(),
                },
            ))
        };
        let mut messages = self.read(topic, read).await?;
        messages.sort_unstable_by_key(|(position, _)| *position);
        Ok(messages.into_iter().map(|(_, message)| message).collect())
    }

    /// The positions of all events that are committed in a topic, in their order.
    pub(crate) async fn positions(&self, topic: String) -> Result<Vec<i64>> {
        let mut positions = self.read(topic, position).await?;
        positions.sort_unstable();
        Ok(positions)
    }

    /// Reads a topic to its end, on a thread of its own.
    async fn read<T: Send + 'static>(
        &self,
        topic: String,
        read: impl Fn(&BorrowedMessage<'_>) -> Result<T> + Send + 'static,
    ) -> Result<Vec<T>> {
        let consumer: BaseConsumer = ClientConfig::new()
            .set("bootstrap.servers", &self.addresses)
            .set("group.id", "annals-bench")
            .set("enable.auto.commit", "false")
            .set("enable.partition.eof", "true")
            .set("isolation.level", "read_committed")
            .create()?;
        let reading = tokio::task::spawn_blocking(move || {
            let metadata = consumer.fetch_metadata(Some(&topic), PATIENCE)?;
            let found = metadata.topics().iter().flat_map(|topic| topic.partitions());
            let mut open: BTreeSet<_> = found.map(|partition| partition.id()).collect();
            let mut all = TopicPartitionList::new();
            for partition in &open {
                all.add_partition_offset(&topic, *partition, Offset::Beginning)?;
            }
            consumer.assign(&all)?;
            let mut messages = Vec::new();
            while !open.is_empty() {
                match consumer.poll(PATIENCE) {
                    Some(Ok(message)) => messages.push(read(&message)?),
                    Some(Err(KafkaError::PartitionEOF(partition))) => {
                        open.remove(&partition);
                    }
                    Some(Err(error)) => return Err(error.into()),
                    None => bail!("the broker sends nothing of {topic}"),
                }
            }
            Ok(messages)
        });
        reading.await.context("the consumer panicked")?
    }
}

/// The position of the event that a message bears.
fn position(message: &BorrowedMessage<'_>) -> Result<i64> {
    let mut headers = message.headers().into_iter().flat_map(|headers| headers.iter());
    let sequence = headers.find(|header| header.key == "ce_sequence");
    let sequence = sequence.and_then(|header| header.value).context("no ce_sequence")?;
    Ok(std::str::from_utf8(sequence)?.parse()?)
}
