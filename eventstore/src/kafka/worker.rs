//! What runs on the producer's thread: everything that blocks.

use std::{
    convert::Infallible,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
        mpsc,
    },
    thread,
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
    circuit::Passage,
    cloud_events::{Headers, MAX_HEADERS},
    delivery::Delivery,
    options::Settings,
    producer::{Failure, Job, Report, Step, broker_error},
    progress_record::ProgressRecord,
    publication::Router,
    receipts::{PROGRESS, Receipts, Undelivered, is_consequence, is_fenced, is_permanent},
    settle::Before,
    start::Told,
    topics::{Topics, Unready},
};
use crate::{error::Error, event::Recorded, fail_points::fail_point, ids::Position, trace};

/// How long the broker has to answer a question.
const BROKER_TIMEOUT: Duration = Duration::from_secs(3);
/// After this time without an acknowledgement the broker is asked whether it is there.
const STALL: Duration = Duration::from_secs(1);
/// Between looks at what has become of messages; `flush` would look each 100 ms.
pub(super) const STEP: Duration = Duration::from_millis(1);
/// How long brokers may take to come back, where there are too few of them for a new topic.
const RETURN: Duration = Duration::from_secs(10);
/// The pause before something failed is tried again, and between looks at an idle producer.
pub(super) const PAUSE: Duration = Duration::from_millis(100);

/// A producer and what it needs.
pub(super) struct Worker {
    pub(super) settings: Arc<Settings>,
    /// It is also the key of the store's progress.
    pub(super) transactional_id: Arc<str>,
    pub(super) progress_topic: String,
    /// How far the store was published when it began, by what the database says.
    checkpoint: Position,
    passage: Passage,
    /// Why the session is over, if the circuit is open.
    halted: Option<String>,
    reports: UnboundedSender<Report>,
    abandoned: Arc<AtomicBool>,
    pub(super) producer: BaseProducer<Receipts>,
    pub(super) topics: Topics,
    router: Router,
    /// The topics to see to at the start.
    known: Vec<Arc<str>>,
    headers: Headers,
    /// Whether the last report was that it cannot be reached.
    unreachable: bool,
    /// When its last transaction was committed.
    pub(super) committed: Option<Instant>,
}

impl Worker {
    pub(super) fn new(
        settings: Arc<Settings>,
        categories: Vec<String>,
        transactional_id: Arc<str>,
        checkpoint: Position,
        passage: Passage,
        reports: UnboundedSender<Report>,
        abandoned: Arc<AtomicBool>,
    ) -> Result<Self, Failure> {
        let producer = settings
            .producer(&transactional_id)
            .create_with_context(Receipts::default())
            .map_err(|error| Failure::Refused(broker_error("create a producer", error)))?;
        let mut router = Router::new(&settings.context, &settings.publication);
        let in_log = settings.publication.with_known_topics(categories);
        let in_log = in_log.iter().map(|category| router.of_category(category));
        let mut known: Vec<_> = in_log.chain(settings.plan.declared().map(Arc::from)).collect();
        known.push(ProgressRecord::topic(&settings.context).into());
        Ok(Self {
            transactional_id,
            progress_topic: ProgressRecord::topic(&settings.context),
            checkpoint,
            passage,
            halted: None,
            reports,
            abandoned,
            producer,
            topics: Topics::default(),
            router,
            known,
            headers: Headers::new(&settings.context, settings.disclosure, settings.schemas.clone()),
            unreachable: false,
            committed: None,
            settings,
        })
    }

    /// Finds the broker and what it knows, then does jobs until something fails.
    pub(super) fn serve(&mut self, jobs: &mpsc::Receiver<Job>) -> Failure {
        let Err(failure) = self.work(jobs);
        // Whatever failed then, this is why.
        match self.producer.client().fatal_error() {
            Some((code, reason)) if is_fenced(code) => {
                tracing::debug!(reason, "fenced");
                Failure::Fenced
            }
            _ => {
                if let Failure::Interrupted(_) = failure {
                    self.passage.failed();
                }
                failure
            }
        }
    }

    fn work(&mut self, jobs: &mpsc::Receiver<Job>) -> Result<Infallible, Failure> {
        self.until_answered(Self::reaches_broker)?;
        let known = std::mem::take(&mut self.known);
        self.prepare(&known, &[])?;
        fail_point!("publisher-connected");
        // First, so that nobody else adds to what is read then.
        if self.settings.delivery == Delivery::ExactlyOnce {
            self.init_transactions()?;
            fail_point!("publisher-initialised");
            self.settle(Before::Predecessor(self.checkpoint))?;
        }
        let told = self.read_progress()?;
        fail_point!("publisher-progress-read");
        self.passage.begun();
        self.tell(Report::Ready(told));
        loop {
            let published = match jobs.recv_timeout(PAUSE) {
                Ok(Job::Deliver(step)) => self.deliver(&step)?,
                Ok(Job::Finish) => {
                    self.await_all(&[])?;
                    0
                }
                Err(mpsc::RecvTimeoutError::Timeout) => {
                    // What librdkafka has to say must not pile up.
                    self.hear();
                    self.check(&[])?;
                    continue;
                }
                Err(mpsc::RecvTimeoutError::Disconnected) => return Err(Failure::Abandoned),
            };
            if published > 0 || self.settings.delivery == Delivery::ExactlyOnce {
                self.passage.acknowledged();
            }
            self.tell(Report::Done(published));
        }
    }

    /// Takes a step. How many events are published by it.
    fn deliver(&mut self, step: &Step) -> Result<usize, Failure> {
        let events = step.events.len();
        let _span = tracing::debug_span!("publish", events, to = %step.to).entered();
        let _traces = trace::continued(&*step.events, |event| {
            let (stream, position) = (&event.stream, event.position.get());
            tracing::info_span!("publish event", %stream, position)
        });
        match self.settings.delivery {
            Delivery::ExactlyOnce => self.in_transaction(step),
            Delivery::AtLeastOnce => {
                let published = self.deliver_events(&step.events)?;
                // Its acknowledgement is waited for together with those of the next batch.
                self.send_progress(step)?;
                Ok(published)
            }
        }
    }

    /// Sends what is published of a batch, and waits until the broker has acknowledged all of it. The number
    /// of records.
    pub(super) fn deliver_events(&mut self, batch: &[Recorded]) -> Result<usize, Failure> {
        let settings = self.settings.clone();
        let mut sent = 0;
        // What was not waited for last time may have failed.
        self.check(batch)?;
        self.producer.context().start_batch();
        for (index, stored) in batch.iter().enumerate() {
            if let Some(event) = settings.publication.publish(stored).map_err(Failure::Refused)? {
                let topic = self.router.topic(stored).map_err(Failure::Refused)?;
                if !self.topics.are_ready(&topic) {
                    self.prepare(std::slice::from_ref(&topic), batch)?;
                }
                self.send(index, &event, &topic, batch)?;
                sent += 1;
                fail_point!("publisher-sent");
            }
            if index % 1024 == 1023 {
                self.hear();
                self.check(batch)?;
            }
        }
        self.await_all(batch)?;
        let acknowledged = self.producer.context().acknowledged();
        if acknowledged != sent {
            let missing = format!("{acknowledged} of {sent} are acknowledged");
            let action = "account for all messages".to_owned();
            return Err(Failure::Interrupted(Error::Broker { action, source: missing.into() }));
        }
        fail_point!("publisher-delivered");
        Ok(sent)
    }

    /// Waits until nothing is on its way any more.
    pub(super) fn await_all(&mut self, batch: &[Recorded]) -> Result<(), Failure> {
        let (mut left, mut since) = (self.producer.in_flight_count(), Instant::now());
        while left > 0 {
            self.hear_after(STEP);
            self.check(batch)?;
            let now = self.producer.in_flight_count();
            if now < left {
                (left, since) = (now, Instant::now());
                self.reached();
            } else if since.elapsed() > STALL {
                self.reaches_broker();
                since = Instant::now();
            }
        }
        self.check(batch)
    }

    /// Sends how far the store is published then.
    pub(super) fn send_progress(&mut self, step: &Step) -> Result<(), Failure> {
        let mut progress = ProgressRecord::new(step.to);
        progress.event = step.event;
        progress.offsets = match step.told {
            Told::All => self.producer.context().offsets(),
            Told::Less => self.all_ends()?,
        };
        let (topic, key) = (self.progress_topic.clone(), self.transactional_id.clone());
        let value = progress.to_json();
        let record = BaseRecord::with_opaque_to(&topic, PROGRESS)
            .partition(0)
            .key(key.as_bytes())
            .payload(value.as_slice());
        self.enqueue(record, &[])?;
        fail_point!("publisher-progress-sent");
        Ok(())
    }

    /// Puts a message into the producer's queue, when there is room.
    fn send(
        &mut self,
        index: usize,
        event: &Recorded,
        topic: &str,
        batch: &[Recorded],
    ) -> Result<(), Failure> {
        let mut headers = Some(OwnedHeaders::new_with_capacity(MAX_HEADERS));
        self.headers.write(event, |key, value| {
            headers = headers.take().map(|all| all.insert(Header { key, value: Some(value) }));
        });
        let mut record = BaseRecord::with_opaque_to(topic, index)
            .key(event.stream.key().as_bytes())
            .payload(event.event.as_bytes());
        record.headers = headers;
        self.enqueue(record, batch)
    }

    pub(super) fn enqueue(
        &self,
        mut record: BaseRecord<'_, [u8], [u8], usize>,
        batch: &[Recorded],
    ) -> Result<(), Failure> {
        loop {
            let (error, back) = match self.producer.send(record) {
                Ok(()) => return Ok(()),
                Err(refused) => refused,
            };
            record = back;
            match error.rdkafka_error_code() {
                Some(Code::QueueFull) => self.hear_after(STEP),
                code => {
                    let bytes = |part: Option<&[u8]>| part.map_or(0, <[u8]>::len);
                    let bytes = bytes(record.payload) + bytes(record.key);
                    let code = code.unwrap_or(Code::Unknown);
                    let index = record.delivery_opaque;
                    return Err(undelivered(batch, Undelivered { index, bytes, code }));
                }
            }
            self.check(batch)?;
        }
    }

    /// Sees to topics, for as long as that takes.
    fn prepare(&mut self, names: &[Arc<str>], batch: &[Recorded]) -> Result<(), Failure> {
        let settings = self.settings.clone();
        let began = Instant::now();
        loop {
            let client = self.producer.client();
            let prepared = self.topics.prepare(
                names,
                &settings.plan,
                client,
                &settings.client,
                BROKER_TIMEOUT,
            );
            match prepared {
                Ok(()) => break,
                Err(Unready::Changing) => {}
                Err(Unready::TooFewBrokers(error)) if began.elapsed() < RETURN => {
                    tracing::debug!(error = crate::error::chain(&error), "waiting for brokers");
                }
                Err(Unready::Differ(differences)) => {
                    let action = "publish: topics are not as declared".to_owned();
                    let source = Box::new(differences);
                    return Err(Failure::Refused(crate::Error::Broker { action, source }));
                }
                Err(Unready::Refused(error) | Unready::TooFewBrokers(error)) => {
                    return Err(Failure::Refused(error));
                }
                Err(Unready::Failed(error)) if code_of(&error).is_none_or(is_permanent) => {
                    return Err(Failure::Refused(broker_error("see to the topics", error)));
                }
                Err(Unready::Failed(error)) => self.missed(&error),
            }
            self.hear_after(PAUSE);
            self.check(batch)?;
        }
        self.reached();
        Ok(())
    }

    /// Asks the broker whether it is there, and reports whether it answers.
    pub(super) fn reaches_broker(&mut self) -> bool {
        if self.passage.is_over() {
            self.halted.get_or_insert_with(|| "other failures, or by hand".to_owned());
            return false;
        }
        match self.producer.client().fetch_metadata(None, BROKER_TIMEOUT) {
            Ok(_) => {
                self.reached();
                true
            }
            Err(error) => {
                self.hear_after(STEP);
                self.missed(&error);
                false
            }
        }
    }

    /// Hears what librdkafka has to say, after a while.
    ///
    /// `poll` waits, too, but spends the last millisecond of its time asking without pause: on two cores, the
    /// broker needs them more.
    pub(super) fn hear_after(&self, pause: Duration) {
        thread::sleep(pause);
        self.hear();
    }

    /// Hears what librdkafka has to say by now.
    fn hear(&self) {
        loop {
            let before = self.producer.in_flight_count();
            // It takes one report, which is about many messages.
            self.producer.poll(Duration::ZERO);
            if self.producer.in_flight_count() >= before {
                return;
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
        self.passage.failed();
        if self.passage.is_over() {
            self.halted = Some(reason.clone());
        }
        self.tell(Report::Unreachable(reason));
    }

    fn tell(&self, report: Report) {
        // Nobody may be there to hear it; then the thread is abandoned too.
        let _ = self.reports.send(report);
    }

    /// Fails if a message has failed, the circuit was found open, or nobody waits any more.
    pub(super) fn check(&self, batch: &[Recorded]) -> Result<(), Failure> {
        if self.abandoned.load(Ordering::Relaxed) {
            return Err(Failure::Abandoned);
        }
        if let Some(reason) = &self.halted {
            return Err(Failure::Open(reason.clone()));
        }
        let Some(mut failure) = self.producer.context().failure() else { return Ok(()) };
        if is_consequence(failure.code) {
            // What led to it may be reported a moment later.
            self.hear_after(PAUSE);
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

pub(super) fn code_of(error: &KafkaError) -> Option<Code> {
    match error {
        KafkaError::AdminOp(code) => Some(*code),
        KafkaError::Transaction(error) => Some(error.code()),
        error => error.rdkafka_error_code(),
    }
}
