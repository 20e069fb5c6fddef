//! Where to read from: the brokers, the context, and how.

use std::{collections::BTreeMap, fmt, sync::Arc, thread, time::Duration};

use annals_eventstore::kafka::{Security, TopicPolicy, TopicSpec};
use rdkafka::{ClientConfig, config::FromClientConfigAndContext, consumer::BaseConsumer};
use tokio::sync::oneshot;

use super::{
    client::Connections,
    error::FeedError,
    group::Join,
    offsets::{Offsets, Partitions, Start},
    subscription::Subscription,
    topics::{self, Place},
};

/// What reading rests on. (librdkafka knows some of these by two names.)
const FIXED: [(&str, &str); 6] = [
    // Nothing of a transaction that is open or aborted.
    ("isolation.level", "read_committed"),
    // What is gone is gone: nothing is skipped in silence.
    ("auto.offset.reset", "error"),
    // Offsets are kept with what was made of the events.
    ("enable.auto.commit", "false"),
    ("enable.auto.offset.store", "false"),
    ("enable.partition.eof", "true"),
    ("allow.auto.create.topics", "false"),
];
const FIXED_TOO: [&str; 8] = [
    "bootstrap.servers",
    "metadata.broker.list",
    "group.id",
    "group.instance.id",
    "group.protocol",
    "partition.assignment.strategy",
    "topic.auto.offset.reset",
    "transactional.id",
];
/// What suits it, and can be changed.
const DEFAULTS: [(&str, &str); 8] = [
    // What a transaction holds is there once it is committed, which ends no wait of the broker's.
    ("fetch.wait.max.ms", "10"),
    ("fetch.max.bytes", "8388608"),
    ("queued.max.messages.kbytes", "8192"),
    // A full queue is soon less full.
    ("fetch.queue.backoff.ms", "10"),
    ("fetch.error.backoff.ms", "100"),
    ("reconnect.backoff.max.ms", "1000"),
    ("socket.keepalive.enable", "true"),
    ("log.connection.close", "false"),
];
/// The pause before something failed is tried again.
pub(super) const PAUSE: Duration = Duration::from_millis(100);

/// A context whose events are in Kafka, and how they are read from there.
///
/// It is cheap to clone. Nothing is connected until something is read.
///
/// ```no_run
/// # async fn run() -> Result<(), Box<dyn std::error::Error>> {
/// use annals_projections::kafka::{Source, Start};
///
/// let source = Source::new("localhost:9092", "lending")?;
/// let mut loans = source.subscribe(["loan"]).start(Start::Earliest);
/// loop {
///     let page = loans.next().await?;
///     for event in &page.events {
///         println!("{}: {} of {}", event.position, event.event_type, event.stream);
///     }
///     println!("go on at {}", serde_json::to_string(&page.resume())?);
/// }
/// # }
/// ```
#[derive(Clone)]
pub struct Source {
    pub(super) context: Arc<str>,
    client: ClientConfig,
    group: String,
    /// The topics of categories that are elsewhere than by default.
    topics: BTreeMap<String, Vec<String>>,
    pub(super) buffer: usize,
    pub(super) dead_letters: (TopicSpec, TopicPolicy),
}

impl fmt::Debug for Source {
    /// Without the client's configuration, in which there may be passwords and keys.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Source")
            .field("context", &self.context)
            .field("group", &self.group)
            .field("topics", &self.topics)
            .finish_non_exhaustive()
    }
}

impl Source {
    /// The events of a context at some brokers (`host:port,...`).
    ///
    /// # Errors
    /// [`FeedError::Option`] if the context is no part of a topic's name.
    pub fn new(brokers: impl Into<String>, context: impl Into<String>) -> Result<Self, FeedError> {
        let (brokers, context) = (brokers.into(), context.into());
        let legal = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
        if context.is_empty() || !context.bytes().all(legal) {
            let reason = "a context is ASCII letters, digits, '.', '_' and '-'";
            return Err(FeedError::option(format!("context {context:?}"), reason));
        }
        let mut client = ClientConfig::new();
        for (key, value) in DEFAULTS.into_iter().chain(FIXED) {
            client.set(key, value);
        }
        client.set("bootstrap.servers", brokers);
        let group = format!("annals.{context}");
        Ok(Self {
            context: context.into(),
            client,
            group,
            topics: BTreeMap::new(),
            buffer: 32 << 20,
            dead_letters: Default::default(),
        })
    }

    /// The context.
    pub fn context(&self) -> &str {
        &self.context
    }

    /// Says in which topic events of a category are, where that is not `{context}.{category}.events.v1`.
    /// Call it several times if they are in several.
    #[must_use]
    pub fn topic(mut self, category: impl Into<String>, topic: impl Into<String>) -> Self {
        self.topics.entry(category.into()).or_default().push(topic.into());
        self
    }

    /// The group under which clients are known to the brokers: `annals.{context}` unless set. It matters
    /// where rights are given to groups by name. (Members of a [`Group`](super::Group) are known under its.)
    #[must_use]
    pub fn group_id(mut self, group: impl Into<String>) -> Self {
        self.group = group.into();
        self
    }

    /// How much memory the events of a subscription take at most before they are taken from it: 32 MiB
    /// unless set. What the client has fetched ahead comes on top of that
    /// (`queued.max.messages.kbytes`: 8 MiB).
    #[must_use]
    pub fn buffer_bytes(mut self, bytes: usize) -> Self {
        self.buffer = bytes.max(1);
        self
    }

    /// What topics of [dead letters](super::DeadLetters) are to be like. They are created so, and held to it later.
    ///
    /// ```
    /// # fn run() -> Result<(), annals_projections::kafka::FeedError> {
    /// use std::time::Duration;
    ///
    /// use annals_eventstore::kafka::{TopicPolicy, TopicSpec};
    /// use annals_projections::kafka::Source;
    ///
    /// let month = Duration::from_secs(30 * 24 * 3600);
    /// let source = Source::new("localhost:9092", "lending")?
    ///     .dead_letters(TopicSpec::new().replication(3).keep_for(month))
    ///     .dead_letter_policy(TopicPolicy::Check);
    /// # Ok(()) }
    /// ```
    ///
    /// What is not declared is not looked at, except that `cleanup.policy` is `delete`: compaction would leave but the
    /// last letter of each stream. One that is created gets as many partitions as the topic that its records
    /// come from, `retention.ms=-1`, and `max.message.bytes=10485760`, where that is not declared otherwise.
    #[must_use]
    pub fn dead_letters(mut self, spec: TopicSpec) -> Self {
        self.dead_letters.0 = spec;
        self
    }

    /// Who creates topics of dead letters, and whether they are looked at: [`TopicPolicy::Create`] unless set.
    #[must_use]
    pub fn dead_letter_policy(mut self, policy: TopicPolicy) -> Self {
        self.dead_letters.1 = policy;
        self
    }

    /// Sets a property of librdkafka's consumer, such as `fetch.wait.max.ms`.
    ///
    /// # Errors
    /// [`FeedError::Option`] if there is no such property, the value is out of range, or the guarantees
    /// rest on it: isolation, offsets, groups.
    pub fn config(
        mut self,
        key: impl Into<String>,
        value: impl Into<String>,
    ) -> Result<Self, FeedError> {
        let key = key.into();
        if FIXED_TOO.contains(&&*key) || FIXED.iter().any(|(fixed, _)| *fixed == key) {
            return Err(FeedError::option(key, "it is set by what the guarantees rest on"));
        }
        self.client.set(&key, value);
        if let Err(error) = self.client.create_native_config() {
            return Err(FeedError::option(key, error));
        }
        Ok(self)
    }

    /// TLS and SASL, as for the publisher.
    ///
    /// # Errors
    /// [`FeedError::Option`] if the program is built without what it asks for.
    pub fn security(mut self, security: &Security) -> Result<Self, FeedError> {
        security.check().map_err(|error| FeedError::option("security", error))?;
        for (key, value) in security.properties() {
            self.client.set(key, value);
        }
        Ok(self)
    }

    /// A subscription to the events of some categories, to be started.
    pub fn subscribe<T: Into<String>>(&self, categories: impl IntoIterator<Item = T>) -> Subscribe {
        Subscribe::new(self.clone(), categories.into_iter().map(Into::into).collect())
    }

    /// A membership in the consumer group `{context}.{name}`, which shares the partitions of some
    /// categories' topics out among processes. The name is that of what the events are read for.
    pub fn group(&self, name: impl Into<String>, categories: &[String]) -> Join {
        Join::new(self.clone(), name.into(), categories.to_vec())
    }

    /// Where the topics of some categories end now. What is published from now on is behind that.
    ///
    /// So a projection moves over from the store without a gap: note the ends; read the store up to its
    /// safe position; subscribe from that position and these ends on.
    ///
    /// Waits for a broker that does not answer. Cancellation safe.
    ///
    /// # Errors
    /// What does not get better by waiting: [`FeedError::PartitionCounts`], or a broker that refuses.
    pub async fn ends(
        &self,
        categories: &[String],
        partitions: &Partitions,
    ) -> Result<Offsets, FeedError> {
        let partitions = partitions.clone();
        self.ask(categories, move |consumer, topics| {
            let places: Vec<_> = places(topics, &partitions).collect();
            let ends = topics::ends(consumer, &places)
                .map_err(|error| FeedError::broker("look where the topics end", error))?;
            let ends = places.iter().zip(ends);
            Ok(ends.map(|(place, end)| (&*place.topic, place.partition, end)).collect())
        })
        .await
    }

    /// How many partitions the topics of some categories have; `None` while there is no such topic. A topic
    /// comes into being with the first event of its category.
    ///
    /// Waits for a broker that does not answer. Cancellation safe.
    ///
    /// # Errors
    /// As [`ends`](Self::ends).
    pub async fn partition_count(&self, categories: &[String]) -> Result<Option<i32>, FeedError> {
        self.ask(categories, |_, topics| Ok(topics.first().map(|(_, count)| *count))).await
    }

    /// Asks the broker, on a thread of its own, until it answers.
    async fn ask<T: Send + 'static>(
        &self,
        categories: &[String],
        question: impl Fn(&BaseConsumer<Connections>, &[(Arc<str>, i32)]) -> Result<T, FeedError>
        + Send
        + 'static,
    ) -> Result<T, FeedError> {
        let consumer = self.consumer()?;
        let names = self.topics_of(categories);
        let (answer, answered) = oneshot::channel();
        let asking = move || {
            let mut told = false;
            while !answer.is_closed() {
                let asked = existing(&consumer, &names)
                    .and_then(|(topics, _)| question(&consumer, &topics));
                match asked {
                    Err(error) if error.is_retryable() => {
                        if !std::mem::replace(&mut told, true) {
                            tracing::warn!(%error, "Kafka does not answer; waiting for it");
                        }
                        // Hears what there is to say, too.
                        consumer.poll(PAUSE);
                    }
                    asked => {
                        // Nobody may be there to hear it.
                        let _ = answer.send(asked);
                        return;
                    }
                }
            }
        };
        spawn("annals-kafka-ask", asking)?;
        let ended = |_| FeedError::Broker {
            action: "ask the broker".to_owned(),
            source: Arc::from(Box::<dyn std::error::Error + Send + Sync>::from("the thread ended")),
            retryable: true,
        };
        answered.await.map_err(ended)?
    }

    /// The topics of some categories, in order.
    pub(super) fn topics_of(&self, categories: &[String]) -> Vec<Arc<str>> {
        let of = |category: &String| match self.topics.get(category) {
            Some(topics) => topics.clone(),
            None => vec![format!("{}.{category}.events.v1", self.context)],
        };
        let mut topics: Vec<Arc<str>> =
            categories.iter().flat_map(of).map(|topic| topic.into()).collect();
        topics.sort_unstable();
        topics.dedup();
        topics
    }

    /// A consumer that is no member of a group.
    pub(super) fn consumer(&self) -> Result<BaseConsumer<Connections>, FeedError> {
        // Without a group's name librdkafka assigns nothing.
        self.client(&[("group.id", &self.group)], Connections::default())
    }

    /// A consumer with some properties more.
    pub(super) fn client<C: rdkafka::consumer::ConsumerContext>(
        &self,
        more: &[(&str, &str)],
        context: C,
    ) -> Result<BaseConsumer<C>, FeedError> {
        let mut client = self.client.clone();
        for (key, value) in more {
            client.set(*key, *value);
        }
        BaseConsumer::from_config_and_context(&client, context)
            .map_err(|error| FeedError::option("of the consumer", error))
    }

    /// The properties for clients of another kind: those that consumers alone have are left out.
    pub(super) fn connection(&self) -> ClientConfig {
        let mut client = self.client.clone();
        let of_consumers = |key: &str| {
            let fixed = FIXED.iter().chain(&DEFAULTS[..5]).any(|(fixed, _)| *fixed == key);
            fixed
                || ["fetch.", "queued.", "max.poll.", "session.", "heartbeat."]
                    .iter()
                    .any(|start| key.starts_with(start))
        };
        // The map shows no passwords and keys: what is left has to be the original.
        for key in self.client.config_map().into_keys().filter(|key| of_consumers(key)) {
            client.remove(key);
        }
        client
    }
}

/// Which of some topics there are, with the number of their partitions, and which there are not.
pub(super) type Existing = (Vec<(Arc<str>, i32)>, Vec<Arc<str>>);

pub(super) fn existing<C: rdkafka::consumer::ConsumerContext>(
    consumer: &BaseConsumer<C>,
    topics: &[Arc<str>],
) -> Result<Existing, FeedError> {
    let (mut there, mut missing) = (Vec::<(Arc<str>, i32)>::new(), Vec::new());
    for topic in topics {
        let count = topics::partitions(consumer, topic)
            .map_err(|error| FeedError::broker(format!("look for the topic {topic}"), error))?;
        let Some(partitions) = count else {
            missing.push(topic.clone());
            continue;
        };
        if let Some((other, others)) = there.first().filter(|(_, others)| *others != partitions) {
            return Err(FeedError::PartitionCounts {
                topic: topic.to_string(),
                partitions,
                other: other.to_string(),
                others: *others,
            });
        }
        there.push((topic.clone(), partitions));
    }
    Ok((there, missing))
}

/// The partitions of some topics that are to be read.
pub(super) fn places(
    topics: &[(Arc<str>, i32)],
    wanted: &Partitions,
) -> impl Iterator<Item = Place> {
    topics.iter().flat_map(move |(topic, count)| {
        let wanted = (0..*count).filter(|partition| wanted.contains(*partition));
        wanted.map(move |partition| Place { topic: topic.clone(), partition })
    })
}

pub(super) fn spawn(
    name: &str,
    work: impl FnOnce() + Send + 'static,
) -> Result<thread::JoinHandle<()>, FeedError> {
    let failed = |error| FeedError::Broker {
        action: "start a thread".to_owned(),
        source: Arc::new(error),
        retryable: true,
    };
    thread::Builder::new().name(name.to_owned()).spawn(work).map_err(failed)
}

/// A subscription that is to be started. Get it from [`Source::subscribe`].
#[derive(Clone, Debug)]
#[must_use = "it does nothing until start"]
pub struct Subscribe {
    pub(super) source: Source,
    pub(super) categories: Vec<String>,
    pub(super) partitions: Partitions,
    pub(super) page_events: usize,
    pub(super) page_bytes: usize,
    pub(super) label: Arc<str>,
}

impl Subscribe {
    fn new(source: Source, categories: Vec<String>) -> Self {
        let label = source.context.clone();
        Self {
            source,
            categories,
            partitions: Partitions::All,
            page_events: 2000,
            page_bytes: crate::page::PAGE_BYTES,
            label,
        }
    }

    /// Reads some partitions only: all unless set.
    pub fn partitions(mut self, partitions: Partitions) -> Self {
        self.partitions = partitions;
        self
    }

    /// The most events of a page: 2,000 unless set.
    pub fn page_events(mut self, events: usize) -> Self {
        self.page_events = events.max(1);
        self
    }

    /// The name by which metrics and log lines tell this subscription from others: the context unless set.
    pub fn label(mut self, label: impl Into<Arc<str>>) -> Self {
        self.label = label.into();
        self
    }

    /// Starts it. It returns at once: what does not work is said by [`Subscription::next`].
    pub fn start(self, start: Start) -> Subscription {
        Subscription::start(self, start)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source() -> Source {
        Source::new("localhost:9092", "lending").unwrap()
    }

    #[test]
    fn the_guarantees_cannot_be_configured_away() {
        for (key, value) in [
            ("isolation.level", "read_uncommitted"),
            ("auto.offset.reset", "earliest"),
            ("enable.auto.commit", "true"),
            ("group.id", "x"),
            ("fetch.wait.millis", "1"),
            ("fetch.wait.max.ms", "often"),
        ] {
            let error = source().config(key, value).unwrap_err();
            assert!(error.to_string().contains(key), "{error}");
        }
        assert!(source().config("fetch.wait.max.ms", "50").is_ok());
        for context in ["", "a b", "é"] {
            assert!(Source::new("localhost:9092", context).is_err(), "{context}");
        }
    }

    #[test]
    fn categories_have_topics() {
        let source = source().topic("card", "cards.new").topic("card", "cards.old");
        let topics = source.topics_of(&["loan".into(), "card".into()]);
        let topics: Vec<_> = topics.iter().map(|topic| &**topic).collect();
        assert_eq!(topics, ["cards.new", "cards.old", "lending.loan.events.v1"]);
    }

    #[test]
    fn a_producer_gets_the_connections_properties_only() {
        let source = source().config("client.id", "reader").unwrap();
        let connection = source.connection();
        assert_eq!(connection.get("client.id"), Some("reader"));
        assert_eq!(connection.get("bootstrap.servers"), Some("localhost:9092"));
        assert_eq!(connection.get("isolation.level"), None);
        assert_eq!(connection.get("fetch.wait.max.ms"), None);
    }
}
