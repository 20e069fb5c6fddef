//! How often an event arrives.

use std::time::Duration;

use rdkafka::ClientConfig;

/// How often an event arrives in its topic. Set it with
/// [`Builder::delivery`](super::Builder::delivery).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Delivery {
    /// Once. Events are published in transactions, together with how far the store is published; consumers
    /// read with `isolation.level=read_committed`.
    #[default]
    ExactlyOnce,
    /// Once, and again where a publisher is interrupted. Without transactions: for brokers that have none,
    /// and for consumers that must see an event before its batch is complete.
    AtLeastOnce,
}

/// What the guarantees of both rest on. (librdkafka knows some of these by two names.)
const ALWAYS: [(&str, &str); 3] = [
    ("enable.idempotence", "true"),
    ("acks", "all"),
    // Where Java clients put a key too; librdkafka's default differs.
    ("partitioner", "murmur2_random"),
];
const OTHERS: [&str; 8] = [
    "bootstrap.servers",
    "metadata.broker.list",
    "request.required.acks",
    "message.timeout.ms",
    "delivery.timeout.ms",
    "enable.gapless.guarantee",
    "transactional.id",
    "transaction.timeout.ms",
];

/// Whether an option is not for a program to set.
pub(super) fn is_fixed(key: &str) -> bool {
    ALWAYS.iter().any(|(fixed, _)| *fixed == key) || OTHERS.contains(&key)
}

impl Delivery {
    /// How long a producer waits for more messages before it sends what it has, in milliseconds, unless a program
    /// says otherwise. A transaction waits for it twice: for its events, then for its progress.
    pub(super) fn linger(self) -> &'static str {
        match self {
            Self::ExactlyOnce => "1",
            Self::AtLeastOnce => "5",
        }
    }

    /// A producer's configuration, made of what a program has set.
    pub(super) fn producer(
        self,
        base: &ClientConfig,
        transactional_id: &str,
        transaction_timeout: Duration,
    ) -> ClientConfig {
        let mut config = base.clone();
        for (key, value) in ALWAYS {
            config.set(key, value);
        }
        match self {
            Self::ExactlyOnce => {
                let timeout = transaction_timeout.as_millis();
                config.set("transactional.id", transactional_id);
                config.set("transaction.timeout.ms", timeout.to_string());
                // A message that is late must not be what ends the transaction.
                config.set("message.timeout.ms", (timeout * 3 / 4).to_string());
            }
            Self::AtLeastOnce => {
                // Never give up on a message: that would drop it.
                config.set("message.timeout.ms", "0");
                // After a message that the broker refuses for good, send none of those behind it.
                config.set("enable.gapless.guarantee", "true");
            }
        }
        config
    }
}

/// The beginnings of the options by which a broker is reached, whatever the client is for.
const CONNECTION: [&str; 15] = [
    "bootstrap.servers",
    "broker.address",
    "broker.version",
    "client.",
    "api.version",
    "debug",
    "enable.ssl",
    "enable.sasl",
    "https.",
    "metadata.",
    "reconnect.",
    "sasl.",
    "security.",
    "socket.",
    "ssl.",
];

/// A consumer's configuration that reaches the same brokers.
pub(super) fn consumer(base: &ClientConfig) -> ClientConfig {
    let mut config = ClientConfig::new();
    for key in base.config_map().into_keys() {
        if CONNECTION.iter().any(|beginning| key.starts_with(beginning)) {
            // The map hides passwords.
            config.set(key, base.get(key).unwrap_or_default());
        }
    }
    config
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_consumer_reaches_the_brokers_as_the_producer_does() {
        let mut base = ClientConfig::new();
        for (key, value) in [
            ("bootstrap.servers", "localhost:9092"),
            ("security.protocol", "sasl_ssl"),
            ("sasl.password", "secret"),
            ("ssl.ca.location", "ca.pem"),
            ("linger.ms", "5"),
            ("batch.size", "4000"),
        ] {
            base.set(key, value);
        }
        let config = consumer(&base);
        assert_eq!(config.get("sasl.password"), Some("secret"));
        assert_eq!(config.get("security.protocol"), Some("sasl_ssl"));
        assert_eq!(config.get("ssl.ca.location"), Some("ca.pem"));
        // Consumers warn of these.
        assert_eq!((config.get("linger.ms"), config.get("batch.size")), (None, None));
    }
}
