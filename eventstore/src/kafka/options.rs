//! How a publisher is set up.

use std::{fmt, sync::Arc, time::Duration};

use rdkafka::{ClientConfig, config::RDKafkaLogLevel, error::KafkaError};

use super::{
    Publisher,
    circuit::circuit_of,
    cloud_events::{Disclosure, Schemas},
    delivery::{self, Delivery},
    progress::Reporter,
    publication::Publication,
    security::Security,
    topic_spec::TopicPlan,
    topics,
};
use crate::{breaker::CircuitBreaker, error::Error, postgres::LeaseOptions, store::EventStore};

/// Kafka's limit for a transactional id.
const MAX_STORE_NAME: usize = 200;

/// What a publisher is to do.
#[derive(Clone)]
pub(super) struct Settings {
    pub(super) context: String,
    /// The name of the store, if it was given one.
    pub(super) store: Option<String>,
    pub(super) delivery: Delivery,
    pub(super) transaction_timeout: Duration,
    /// What producers, consumers and administrators have in common.
    pub(super) client: ClientConfig,
    pub(super) publication: Publication,
    pub(super) plan: TopicPlan,
    pub(super) disclosure: Disclosure,
    pub(super) schemas: Option<Schemas>,
    pub(super) batch: usize,
    pub(super) poll_interval: Duration,
    pub(super) lease: LeaseOptions,
    pub(super) circuit: CircuitBreaker,
}

impl fmt::Debug for Settings {
    /// Without the configuration of the client, in which there may be passwords and keys.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Settings")
            .field("context", &self.context)
            .field("publication", &self.publication)
            .field("plan", &self.plan)
            .finish_non_exhaustive()
    }
}

impl Settings {
    /// A producer's configuration.
    pub(super) fn producer(&self, transactional_id: &str) -> ClientConfig {
        self.delivery.producer(&self.client, transactional_id, self.transaction_timeout)
    }
}

/// Options of a [`Publisher`]. Get them from [`Publisher::builder`].
#[derive(Clone)]
#[must_use = "options do nothing until build"]
pub struct Builder {
    brokers: String,
    context: String,
    store: Option<String>,
    delivery: Delivery,
    transaction_timeout: Duration,
    pub(super) publication: Publication,
    pub(super) plan: TopicPlan,
    pub(super) disclosure: Disclosure,
    pub(super) schemas: Option<String>,
    pub(super) security: Security,
    batch: usize,
    poll_interval: Duration,
    lease: LeaseOptions,
    circuit: Option<CircuitBreaker>,
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
            publication: Publication::default(),
            plan: TopicPlan::default(),
            disclosure: Disclosure::default(),
            schemas: None,
            security: Security::new(),
            batch: 10_000,
            poll_interval: Duration::from_millis(100),
            lease: LeaseOptions::default(),
            circuit: None,
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

    /// How often to look for new events when no nudge arrives: 100 ms unless set.
    pub fn poll_interval(mut self, interval: Duration) -> Self {
        self.poll_interval = interval;
        self
    }

    /// The most events in one transaction, or between two moves of the checkpoint: 10,000 unless set. Up to
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

    /// The circuit breaker around the broker, of which clones share the state: with a handle on it a program opens and
    /// closes it by hand, and several publishers leave a broker alone together. Unless set, each publisher has its own,
    /// named `publisher:{context}`: three failures open it, for one second at first and three at most.
    ///
    /// Failures are questions without an answer, and sessions that the broker has failed; being fenced or refused is none.
    /// While it is open there is no session with the broker, and the publisher is in
    /// [`State::CircuitOpen`](super::State::CircuitOpen). When its cool-down is over, exactly one session is tried.
    ///
    /// Opened by hand it halts publishing, once what is under way is acknowledged. The active publisher stays the active one,
    /// so no other one goes on meanwhile. The log keeps everything, and publishing goes on where it was.
    ///
    /// ```no_run
    /// # use annals_eventstore::EventStore;
    /// use annals_eventstore::{
    ///     breaker::{BreakerOptions, CircuitBreaker, Override},
    ///     kafka::Publisher,
    /// };
    ///
    /// # async fn run(store: EventStore) -> Result<(), Box<dyn std::error::Error>> {
    /// let circuit = CircuitBreaker::new("kafka", BreakerOptions::default().failures(3));
    /// let publisher =
    ///     Publisher::builder("localhost:9092", "lending").circuit(circuit.clone()).build(&store)?;
    /// tokio::spawn(publisher.run());
    ///
    /// circuit.set_override(Some(Override::Open)); // the brokers move tonight
    /// circuit.set_override(None);
    /// # Ok(()) }
    /// ```
    pub fn circuit(mut self, circuit: CircuitBreaker) -> Self {
        self.circuit = Some(circuit);
        self
    }

    /// Sets a property of librdkafka's producer, such as `linger.ms`, `compression.type` or
    /// `message.max.bytes`.
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
    /// part of a topic's name, a category or a topic is none, or an option is unknown, out of range,
    /// fixed, or not in this build.
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
        self.publication.check()?;
        let plan = self.plan.of(&self.context)?;
        let schemas = self.schemas.as_deref().map(Schemas::below).transpose()?;
        if let Some(name) = &self.store {
            let legal = |byte: u8| byte.is_ascii_graphic();
            if name.is_empty() || name.len() > MAX_STORE_NAME || !name.bytes().all(legal) {
                let reason = "use 1 to 200 printable ASCII characters without spaces";
                return Err(refused(format!("store_name {name:?}"), reason));
            }
        }
        let mut client = ClientConfig::new();
        // What it logs is also why a broker is not reached; how much of it is shown is decided here.
        client.set_log_level(RDKafkaLogLevel::Info);
        let messages = self.batch.clamp(100_000, 10_000_000).to_string();
        for (key, value) in [
            ("bootstrap.servers", self.brokers.as_str()),
            ("client.id", "annals-publisher"),
            ("compression.type", "lz4"),
            ("linger.ms", self.delivery.linger()),
            ("queue.buffering.max.messages", &messages),
            ("queue.buffering.max.kbytes", "65536"),
            // A broker that is back is noticed within a second.
            ("reconnect.backoff.max.ms", "1000"),
            ("socket.keepalive.enable", "true"),
        ] {
            client.set(key, value);
        }
        let security = self.security.properties();
        for (key, value) in self.config {
            if security.iter().any(|(set, _)| *set == key) {
                return Err(refused(key, "the security settings set it"));
            }
            if delivery::is_fixed(&key) {
                return Err(refused(key, "the publisher sets it; its guarantees rest on it"));
            }
            client.set(key, value);
        }
        self.security.check()?;
        for (key, value) in security {
            client.set(key, value);
        }
        let circuit = self.circuit.unwrap_or_else(|| circuit_of(&self.context));
        let settings = Settings {
            context: self.context,
            store: self.store,
            delivery: self.delivery,
            transaction_timeout: self.transaction_timeout,
            client,
            publication: self.publication,
            plan,
            disclosure: self.disclosure,
            schemas,
            batch: self.batch,
            poll_interval: self.poll_interval,
            lease: self.lease,
            circuit,
        };
        settings.producer("checked").create_native_config().map_err(unusable)?;
        Ok(settings)
    }
}

impl fmt::Debug for Builder {
    /// Without the values of what is configured, among which there may be passwords and keys.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let configured: Vec<_> = self.config.iter().map(|(key, _)| key).collect();
        f.debug_struct("Builder")
            .field("brokers", &self.brokers)
            .field("context", &self.context)
            .field("publication", &self.publication)
            .field("plan", &self.plan)
            .field("security", &self.security)
            .field("configured", &configured)
            .finish_non_exhaustive()
    }
}

fn refused(what: String, reason: &str) -> Error {
    Error::Broker { action: format!("use the option {what}"), source: reason.into() }
}

/// What librdkafka says of an option, without the value, which may be a secret.
fn unusable(error: KafkaError) -> Error {
    let source = match error {
        KafkaError::ClientConfig(_, reason, key, _) => format!("{reason} ({key})").into(),
        error => error.into(),
    };
    Error::Broker { action: "use the options of the publisher".to_owned(), source }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kafka::Sasl;

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
    fn categories_and_addresses_that_cannot_be_are_refused() {
        assert!(builder().only_categories(["loan", "Loan"]).settings().is_err());
        for base in ["", "lending", "https://a b/", "/schemas/"] {
            let error = builder().schemas(base).settings().unwrap_err();
            assert!(error.to_string().contains(&format!("{base:?}")), "{error}");
        }
    }

    #[test]
    fn no_secret_is_in_what_is_shown_or_said() {
        let secured = || builder().security(Security::new().sasl(Sasl::plain("ada", "hidden")));
        let configured = secured().config("ssl.key.password", "hidden");
        assert!(!format!("{configured:?}").contains("hidden"));
        let secure = secured().settings().unwrap();
        assert_eq!(secure.client.get("sasl.password"), Some("hidden"));
        assert!(!format!("{secure:?}").contains("hidden"));

        let twice = secured().config("sasl.password", "hidden").settings().unwrap_err();
        let misspelt = builder().config("sasl.passwort", "hidden").settings().unwrap_err();
        for (error, key) in [(twice, "sasl.password"), (misspelt, "sasl.passwort")] {
            let said = format!("{error:?} {}", crate::error::chain(&error));
            assert!(said.contains(key) && !said.contains("hidden"), "{said}");
        }
    }

    #[cfg(not(feature = "kafka-tls"))]
    #[test]
    fn what_is_not_in_the_build_is_named() {
        let security = Security::new().tls(super::super::Tls::new());
        let error = builder().security(security).settings().unwrap_err();
        assert!(crate::error::chain(&error).contains("feature kafka-tls"), "{error}");
    }

    #[test]
    fn a_store_in_memory_is_refused() {
        let built = builder().build(&EventStore::in_memory());
        assert!(matches!(built, Err(Error::NeedsPostgres { .. })));
    }
}
