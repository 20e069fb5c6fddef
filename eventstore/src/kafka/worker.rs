//! What runs on the producer's thread: everything that blocks.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
        mpsc,
    },
    time::{Duration, Instant},
};

use rdkafka::{
    error::KafkaError,
    message::{Header, OwnedHeaders},
    producer::{BaseProducer, BaseRecord, Producer as _},
    types::RDKafkaErrorCode as Code,
};
use tokio::sync::mpsc::UnboundedSender;

use super::{
    cloud_events::{Headers, MAX_HEADERS},
    options::Settings,
    producer::{Failure, Report, broker_error},
    receipts::{Receipts, Undelivered, is_consequence, is_permanent},
    topics::{self, Topics},
};
use crate::{error::Error, event::Recorded};

/// How long the broker has to answer a question.
const BROKER_TIMEOUT: Duration = Duration::from_secs(3);
/// After this time without an acknowledgement the broker is asked whether it is there.
const STALL: Duration = Duration::from_secs(1);
/// `flush` would wait in steps of 100 ms.
const STEP: Duration = Duration::from_millis(1);
/// The pause before something failed is tried again, and between looks at an idle producer.
const PAUSE: Duration = Duration::from_millis(100);

/// A producer and what it needs.
pub(super) struct Worker {
    settings: Arc<Settings>,
    reports: UnboundedSender<Report>,
    abandoned: Arc<AtomicBool>,
    producer: BaseProducer<Receipts>,
    topics: Topics,
    headers: Headers,
    /// Whether the last report was that it cannot be reached.
    unreachable: bool,
}

impl Worker {
    pub(super) fn new(
        settings: Arc<Settings>,
        reports: UnboundedSender<Report>,
        abandoned: Arc<AtomicBool>,
    ) -> Result<Self, Failure> {
        let producer = settings
            .client
            .create_with_context(Receipts::default())
            .map_err(|error| Failure::Refused(broker_error("create a producer", error)))?;
        let headers = Headers::new(&settings.context, settings.disclosure);
        let topics = Topics::default();
        Ok(Self { settings, reports, abandoned, producer, topics, headers, unreachable: false })
    }

    /// Finds the broker, then delivers batches until something fails.
    pub(super) fn serve(
        mut self,
        batches: &mpsc::Receiver<Arc<[Recorded]>>,
    ) -> Result<(), Failure> {
        while !self.reaches_broker() {
            self.check(&[])?;
            self.producer.poll(PAUSE);
        }
        self.tell(Report::Done);
        loop {
            match batches.recv_timeout(PAUSE) {
                Ok(batch) => {
                    self.deliver(&batch)?;
                    self.tell(Report::Done);
                }
                // What librdkafka has to say must not pile up.
                Err(mpsc::RecvTimeoutError::Timeout) => self.producer.poll(STEP),
                Err(mpsc::RecvTimeoutError::Disconnected) => return Err(Failure::Abandoned),
            }
        }
    }

    /// Sends a batch and waits until the broker has acknowledged all of it.
    fn deliver(&mut self, batch: &[Recorded]) -> Result<(), Failure> {
        self.producer.context().start_batch();
        for (index, event) in batch.iter().enumerate() {
            if self.topics.ready(event.stream.category()).is_none() {
                self.prepare_topic(event.stream.category(), batch)?;
            }
            self.send(index, event, batch)?;
            if index % 1024 == 1023 {
                self.producer.poll(Duration::ZERO);
                self.check(batch)?;
            }
        }
        let (mut acknowledged, mut since) = (0, Instant::now());
        while self.producer.in_flight_count() > 0 {
            self.producer.poll(STEP);
            self.check(batch)?;
            let now = self.producer.context().acknowledged();
            if now > acknowledged {
                (acknowledged, since) = (now, Instant::now());
                self.reached();
            } else if since.elapsed() > STALL {
                self.reaches_broker();
                since = Instant::now();
            }
        }
        self.check(batch)?;
        let acknowledged = self.producer.context().acknowledged();
        if acknowledged == batch.len() {
            return Ok(());
        }
        let missing = format!("{acknowledged} of {} are acknowledged", batch.len());
        let action = "account for all messages".to_owned();
        Err(Failure::Interrupted(Error::Broker { action, source: missing.into() }))
    }

    /// Puts a message into the producer's queue, when there is room.
    fn send(&mut self, index: usize, event: &Recorded, batch: &[Recorded]) -> Result<(), Failure> {
        // Put there before.
        let topic = self.topics.ready(event.stream.category()).unwrap_or_default();
        let mut headers = Some(OwnedHeaders::new_with_capacity(MAX_HEADERS));
        self.headers.write(event, |key, value| {
            headers = headers.take().map(|all| all.insert(Header { key, value: Some(value) }));
        });
        let mut record = BaseRecord::with_opaque_to(topic, index)
            .key(event.stream.key().as_bytes())
            .payload(event.event.as_bytes());
        record.headers = headers;
        loop {
            let (error, back) = match self.producer.send(record) {
                Ok(()) => return Ok(()),
                Err(refused) => refused,
            };
            record = back;
            match error.rdkafka_error_code() {
                Some(Code::QueueFull) => self.producer.poll(STEP),
                code => {
                    let bytes = event.event.as_bytes().len() + event.stream.key().len();
                    let code = code.unwrap_or(Code::Unknown);
                    return Err(undelivered(batch, Undelivered { index, bytes, code }));
                }
            }
            self.check(batch)?;
        }
    }

    /// Sees to the topic of a category: it is there, or is created.
    fn prepare_topic(&mut self, category: &str, batch: &[Recorded]) -> Result<(), Failure> {
        let topic = topics::topic_name(&self.settings.context, category);
        let layout = self.settings.layout;
        while !self.topics.adopt(category, &topic, layout) {
            match topics::create(&self.settings.client, &topic, layout, BROKER_TIMEOUT) {
                Ok(true) => {
                    self.topics.created(category, &topic);
                    break;
                }
                // Created by somebody else since we looked.
                Ok(false) => {
                    self.reaches_broker();
                }
                Err(error) if code_of(&error).is_none_or(is_permanent) => {
                    let action = format!("create the topic {topic}");
                    return Err(Failure::Refused(broker_error(action, error)));
                }
                Err(error) => self.missed(&error),
            }
            self.producer.poll(PAUSE);
            self.check(batch)?;
        }
        self.reached();
        Ok(())
    }

    /// Asks the broker for what it has, and reports whether it answers.
    fn reaches_broker(&mut self) -> bool {
        match self.producer.client().fetch_metadata(None, BROKER_TIMEOUT) {
            Ok(metadata) => {
                self.topics.learn(&self.settings.context, &metadata);
                self.reached();
                true
            }
            Err(error) => {
                // Hear what there is to say about it.
                self.producer.poll(STEP);
                self.missed(&error);
                false
            }
        }
    }

    fn reached(&mut self) {
        if self.unreachable {
            self.unreachable = false;
            self.producer.context().forget_trouble();
            self.tell(Report::Reachable);
        }
    }

    fn missed(&mut self, error: &KafkaError) {
        let reason =
            self.producer.context().trouble().unwrap_or_else(|| crate::error::chain(error));
        self.unreachable = true;
        self.tell(Report::Unreachable(reason));
    }

    fn tell(&self, report: Report) {
        // Nobody may be there to hear it; then the thread is abandoned too.
        let _ = self.reports.send(report);
    }

    /// Fails if a message has failed, or nobody waits any more.
    fn check(&self, batch: &[Recorded]) -> Result<(), Failure> {
        if self.abandoned.load(Ordering::Relaxed) {
            return Err(Failure::Abandoned);
        }
        let Some(mut failure) = self.producer.context().failure() else { return Ok(()) };
        if is_consequence(failure.code) {
            // What led to it may be reported a moment later.
            self.producer.poll(PAUSE);
            failure = self.producer.context().failure().unwrap_or(failure);
        }
        Err(undelivered(batch, failure))
    }
}

/// What to say about a message that was not delivered.
fn undelivered(batch: &[Recorded], failure: Undelivered) -> Failure {
    let Undelivered { index, bytes, code } = failure;
    let action = match batch.get(index) {
        Some(Recorded { version, stream, position, .. }) => format!(
            "publish event {version} of stream {stream}, at position {position}, of {bytes} bytes"
        ),
        None => "publish".to_owned(),
    };
    let error = broker_error(action, KafkaError::MessageProduction(code));
    if is_permanent(code) { Failure::Refused(error) } else { Failure::Interrupted(error) }
}

fn code_of(error: &KafkaError) -> Option<Code> {
    match error {
        KafkaError::AdminOp(code) => Some(*code),
        error => error.rdkafka_error_code(),
    }
}
