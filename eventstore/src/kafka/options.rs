//! How a publisher is set up.

use std::{sync::Arc, time::Duration};

use rdkafka::ClientConfig;

use super::{
    Publisher,
    cloud_events::Disclosure,
    delivery::{self, Delivery},
    progress::Reporter,
    topics::{self, Layout},
};
use crate::{error::Error, postgres::LeaseOptions, store::EventStore};

/// Kafka's limit for a transactional id.
const MAX_STORE_NAME: usize = 200;

/// What a publisher is to do.
#[derive(Clone, Debug)]
pub(super) struct Settings {
    pub(super) context: String,
    /// The name of the store, if it was given one.
    pub(super) store: Option<String>,
    pub(super) delivery: Delivery,
    pub(super) transaction_timeout: Duration,
    /// What producers, consumers and administrators have in common.
    pub(super) client: ClientConfig,
    pub(super) layout: Layout,
    pub(super) disclosure: Disclosure,
    pub(super) batch: usize,
    pub(super) poll_interval: Duration,
    pub(super) lease: LeaseOptions,
}

impl Settings {
    /// A producer's configuration.
    pub(super) fn producer(&self, transactional_id: &str) -> ClientConfig {
        self.delivery.producer(&self.client, transactional_id, self.transaction_timeout)
    }
}

/// Options of a [`Publisher`]. Get them from [`Publisher::builder`].
#[derive(Clone, Debug)]
#[must_use = "options do nothing until build"]
pub struct Builder {
    brokers: String,
    context: String,
    store: Option<String>,
    delivery: Delivery,
    transaction_timeout: Duration,
    partitions: i32,
    replication: Option<i32>,
    disclosure: Disclosure,
    batch: usize,
    poll_interval: Duration,
    lease: LeaseOptions,
    config: Vec<(String, String)>,
}

impl Builder {
    pub(super) fn new(brokers: String, context: String) -> Self {
        Self {
            brokers,
            context,
            store: None,
            delivery: Delivery::default(),
            transaction_timeout: Duration::from_secs(30),
            partitions: 4,
            replication: None,
            disclosure: Disclosure::default(),
            batch: 5000,
            poll_interval: Duration::from_millis(100),
            lease: LeaseOptions::default(),
            config: Vec::new(),
        }
    }

    /// Other brokers (`host:port,...`) than those it was made for: those that can be reached from here.
    pub fn brokers(mut self, brokers: impl Into<String>) -> Self {
        self.brokers = brokers.into();
        self
    }

    /// How often an event arrives in its topic: [`Delivery::ExactlyOnce`] unless set. It can be changed
    /// from one run to the next; the [module](super) says what happens then.
    pub fn delivery(mut self, delivery: Delivery) -> Self {
        self.delivery = delivery;
        self
    }

    /// What the store is called in Kafka: the names of its database and its schema, `app.annals`, unless
    /// set. Stores that publish to one context need different names; all publishers of a store must agree.
    ///
    /// The transactional id is `{context}.publisher.{store}`, and so is the key under which the progress of
    /// the store is kept. With another name, publishing goes on from the checkpoint in the database.
    pub fn store_name(mut self, name: impl Into<String>) -> Self {
        self.store = Some(name.into());
        self
    }

    /// After how much time the broker ends a transaction of a publisher of which it hears nothing any more:
    /// 30 seconds unless set, at least 1. Until then, consumers wait at a transaction that was left open,
    /// unless another publisher takes over, which ends it at once. A batch that cannot be delivered
    /// within three quarters of it is sent again.
    ///
    /// The broker has its own limit (`transaction.max.timeout.ms`, 15 minutes), and looks for such
    /// transactions every 10 seconds. Nothing of this concerns [`Delivery::AtLeastOnce`].
    pub fn transaction_timeout(mut self, timeout: Duration) -> Self {
        self.transaction_timeout = timeout;
        self
    }

    /// How many partitions a topic is created with: 4 unless set.
    ///
    /// It is fixed for life: another number would place keys elsewhere and so tear the order of
    /// streams apart. Topics that exist keep theirs, with a warning.
    pub fn partitions(mut self, partitions: u16) -> Self {
        self.partitions = partitions.into();
        self
    }

    /// How many replicas a topic is created with: the broker's default unless set.
    pub fn replication(mut self, replicas: u16) -> Self {
        self.replication = Some(replicas.into());
        self
    }

    /// Which metadata is published: [`Disclosure::Links`] unless set.
    pub fn metadata(mut self, disclosure: Disclosure) -> Self {
        self.disclosure = disclosure;
        self
    }

    /// How often to look for new events when no nudge arrives: 100 ms unless set.
    pub fn poll_interval(mut self, interval: Duration) -> Self {
        self.poll_interval = interval;
        self
    }

    /// The most events in one transaction, or between two moves of the checkpoint: 5,000 unless set. Up to
    /// twice as many are held in memory, and no more than 32 MiB of them; published at least once, up to this
    /// many are published again after a failure.
    pub fn batch(mut self, events: usize) -> Self {
        self.batch = events.max(1);
        self
    }

    /// How long the lease of the active publisher lasts without renewal: 5 seconds unless set. After
    /// this time another publisher takes over from one that died.
    pub fn lease_time_to_live(mut self, time: Duration) -> Self {
        self.lease.time_to_live = time;
        self
    }

    /// Sets a property of librdkafka's producer, such as `security.protocol`, `linger.ms`,
    /// `compression.type` or `message.max.bytes`.
    ///
    /// Those that the publisher's guarantees rest on (acknowledgements, idempotence, timeouts of
    /// messages, the partitioner, transactions) are refused by [`build`](Self::build).
    pub fn config(mut self, key: impl Into<String>, value: impl Into<String>) -> Self {
        self.config.push((key.into(), value.into()));
        self
    }

    /// Checks the options. The broker is not contacted yet.
    ///
    /// # Errors
    /// [`Error::NeedsPostgres`] if the store is in memory; [`Error::Broker`] if the context is no
    /// part of a topic's name, or an option is unknown, out of range or fixed.
    pub fn build(self, store: &EventStore) -> Result<Publisher, Error> {
        store.database()?;
        let settings = self.settings()?;
        Ok(Publisher {
            store: store.using(crate::postgres::Use::Project),
            settings: Arc::new(settings),
            reporter: Reporter::new(),
        })
    }

    fn settings(self) -> Result<Settings, Error> {
        topics::check_context(&self.context)?;
        if self.partitions == 0 || self.replication == Some(0) {
            return Err(refused("0 partitions or replicas".into(), "use at least 1"));
        }
        if let Some(name) = &self.store {
            let legal = |byte: u8| byte.is_ascii_graphic();
            if name.is_empty() || name.len() > MAX_STORE_NAME || !name.bytes().all(legal) {
                let reason = "use 1 to 200 printable ASCII characters without spaces";
                return Err(refused(format!("store_name {name:?}"), reason));
            }
        }
        let mut client = ClientConfig::new();
        let messages = self.batch.clamp(100_000, 10_000_000).to_string();
        for (key, value) in [
            ("bootstrap.servers", self.brokers.as_str()),
            ("client.id", "annals-publisher"),
            ("compression.type", "lz4"),
            ("linger.ms", "5"),
            ("queue.buffering.max.messages", &messages),
            ("queue.buffering.max.kbytes", "65536"),
            // A broker that is back is noticed within a second.
            ("reconnect.backoff.max.ms", "1000"),
            ("socket.keepalive.enable", "true"),
        ] {
            client.set(key, value);
        }
        for (key, value) in self.config {
            if delivery::is_fixed(&key) {
                return Err(refused(key, "the publisher sets it; its guarantees rest on it"));
            }
            client.set(key, value);
        }
        let settings = Settings {
            context: self.context,
            store: self.store,
            delivery: self.delivery,
            transaction_timeout: self.transaction_timeout,
            client,
            layout: Layout {
                partitions: self.partitions,
                replication: self.replication.unwrap_or(-1),
            },
            disclosure: self.disclosure,
            batch: self.batch,
            poll_interval: self.poll_interval,
            lease: self.lease,
        };
        settings.producer("checked").create_native_config().map_err(|error| Error::Broker {
            action: "use the options of the publisher".to_owned(),
            source: Box::new(error),
        })?;
        Ok(settings)
    }
}

fn refused(what: String, reason: &str) -> Error {
    Error::Broker { action: format!("use the option {what}"), source: reason.into() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn builder() -> Builder {
        Builder::new("localhost:9092".into(), "lending".into())
    }

    #[test]
    fn the_guarantees_cannot_be_configured_away() {
        for (key, value) in [
            ("acks", "1"),
            ("request.required.acks", "1"),
            ("enable.idempotence", "false"),
            ("message.timeout.ms", "1000"),
            ("partitioner", "random"),
            ("transactional.id", "x"),
            ("transaction.timeout.ms", "1000"),
        ] {
            let error = builder().config(key, value).settings().unwrap_err();
            assert!(error.to_string().contains(key), "{error}");
        }
    }

    #[test]
    fn other_properties_are_passed_on() {
        let settings = builder().config("linger.ms", "20").settings().unwrap();
        assert_eq!(settings.client.get("linger.ms"), Some("20"));
        let producer = settings.producer("x");
        assert_eq!(producer.get("linger.ms"), Some("20"));
        assert_eq!(producer.get("acks"), Some("all"));
    }

    #[test]
    fn unknown_properties_and_empty_topics_are_refused() {
        assert!(builder().config("linger.millis", "20").settings().is_err());
        assert!(builder().transaction_timeout(Duration::from_millis(10)).settings().is_err());
        for name in ["", "a b", "é", &"n".repeat(201)] {
            assert!(builder().store_name(name).settings().is_err(), "{name}");
        }
        assert!(builder().partitions(0).settings().is_err());
        assert!(builder().replication(0).settings().is_err());
    }

    #[test]
    fn a_store_in_memory_is_refused() {
        let built = builder().build(&EventStore::in_memory());
        assert!(matches!(built, Err(Error::NeedsPostgres { .. })));
    }
}
