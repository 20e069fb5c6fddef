//! A producer that does nothing but send messages that are in memory: what bounds every publisher.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use annals::kafka::Delivery;
use anyhow::{Context, Result, ensure};
use rdkafka::{
    ClientConfig, ClientContext,
    error::KafkaError,
    message::{DeliveryResult, Header, OwnedHeaders},
    producer::{BaseProducer, BaseRecord, Producer, ProducerContext},
    types::RDKafkaErrorCode,
};

use crate::{
    broker::{Broker, Message},
    measure::Round,
};

/// How long the broker has to take a message.
const PATIENCE: Duration = Duration::from_secs(30);
const STEP: Duration = Duration::from_millis(1);

/// Counts what the broker has taken.
#[derive(Default)]
struct Taken(AtomicU64);

impl ClientContext for Taken {}

impl ProducerContext for Taken {
    type DeliveryOpaque = ();

    fn delivery(&self, result: &DeliveryResult<'_>, (): ()) {
        if result.is_ok() {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// A producer with the settings of the publisher, but for transactions.
pub(super) struct Bare(BaseProducer<Taken>);

impl Bare {
    /// It lingers as long as the publisher does that it stands beside.
    pub(super) fn connect(broker: &Broker, delivery: Delivery) -> Result<Self> {
        let linger = match delivery {
            Delivery::AtLeastOnce => "5",
            _ => "1",
        };
        let mut config = ClientConfig::new();
        for (key, value) in [
            ("bootstrap.servers", broker.addresses()),
            ("enable.idempotence", "true"),
            ("acks", "all"),
            ("compression.type", "lz4"),
            ("linger.ms", linger),
            ("partitioner", "murmur2_random"),
            ("queue.buffering.max.messages", "100000"),
            ("queue.buffering.max.kbytes", "65536"),
        ] {
            config.set(key, value);
        }
        Ok(Self(config.create_with_context(Taken::default())?))
    }

    /// Sends messages to a topic, until the broker has acknowledged all of them. The time counts from when the
    /// producer knows the topic.
    pub(super) async fn send(self, topic: String, messages: Arc<[Message]>) -> Result<Round> {
        let sending = tokio::task::spawn_blocking(move || self.send_all(&topic, &messages));
        sending.await.context("the producer panicked")?
    }

    /// Waits for acknowledgements. (`poll` would not sleep, with a limit as short as this.)
    fn wait(&self) {
        std::thread::sleep(STEP);
        loop {
            let before = self.0.in_flight_count();
            self.0.poll(Duration::ZERO);
            if self.0.in_flight_count() >= before {
                return;
            }
        }
    }

    fn send_all(&self, topic: &str, messages: &[Message]) -> Result<Round> {
        let Self(producer) = self;
        producer.client().fetch_metadata(Some(topic), PATIENCE)?;
        let start = Instant::now();
        for (index, message) in messages.iter().enumerate() {
            let mut headers = OwnedHeaders::new_with_capacity(message.headers.len());
            for (key, value) in &message.headers {
                headers = headers.insert(Header { key, value: Some(value) });
            }
            let record = BaseRecord::to(topic).key(&message.key).payload(&message.payload);
            let mut record = record.headers(headers);
            while let Err((error, back)) = producer.send(record) {
                match error {
                    KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull) => self.wait(),
                    error => return Err(error.into()),
                }
                record = back;
            }
            if index % 1024 == 1023 {
                producer.poll(Duration::ZERO);
            }
        }
        while producer.in_flight_count() > 0 {
            ensure!(start.elapsed() < PATIENCE, "the broker does not take the messages");
            self.wait();
        }
        let elapsed = start.elapsed();
        let (sent, taken) = (messages.len() as u64, producer.context().0.load(Ordering::Relaxed));
        ensure!(taken == sent, "the broker has taken {taken} of {sent} messages");
        Ok(Round { units: sent, elapsed, ..Round::default() })
    }
}
