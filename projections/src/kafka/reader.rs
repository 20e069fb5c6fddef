//! The thread of a subscription: it connects, reads, and hands what it reads to the merge.

mod connect;

use std::{
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use rdkafka::{
    Offset, TopicPartitionList,
    consumer::{BaseConsumer, Consumer},
    error::KafkaError,
    types::RDKafkaErrorCode as Code,
};

use super::{
    client::Connections,
    error::{FeedError, Loss, Lost, code_of, is_permanent},
    intake::Intake,
    offsets::Start,
    pressure::{Action, Pressure},
    source::{self, PAUSE, Subscribe},
    status::FeedState,
    subscription::Shared,
    topics::{self, Place},
};
use crate::worker::failure::text;

/// How long to wait for a record when nothing is expected. A word to stop is heard after this time.
const IDLE: Duration = Duration::from_millis(100);
/// The same while something is expected: partitions that were not read to their end, or are paused.
const BUSY: Duration = Duration::from_millis(5);
/// So much is read before it is handed on.
const BATCH: usize = 500;
const BATCH_BYTES: usize = 1 << 20;
/// Reads until the subscription is dropped, or ends it with an error.
pub(super) fn run(what: Subscribe, start: Start, shared: &Arc<Shared>) {
    /// Ends the subscription if this thread panics, so that nobody waits for it.
    struct Ended<'a>(&'a Shared);
    impl Drop for Ended<'_> {
        fn drop(&mut self) {
            if thread::panicking() {
                self.0.end(FeedError::Broker {
                    action: "go on reading".to_owned(),
                    source: Arc::from(Box::<dyn std::error::Error + Send + Sync>::from("a panic")),
                    retryable: false,
                });
            }
        }
    }
    let _ended = Ended(shared);
    let reading = Reader::new(what, start, shared).and_then(|mut reader| reader.read());
    if let Err(error) = reading {
        shared.end(error);
    }
}

/// What comes after a step.
enum Next {
    Go,
    /// The place is to be found again, after which reading goes on where it was.
    Reconnect,
}

struct Reader<'a> {
    what: Subscribe,
    /// Where lanes begin that are not there yet.
    start: Start,
    shared: &'a Shared,
    /// It is assigned partitions once. librdkafka aborts the process where a partition is taken from a consumer for the
    /// second time before it has stopped to fetch it for the first (librdkafka #5573).
    consumer: BaseConsumer<Connections>,
    is_assigned: bool,
    intake: Intake,
    /// Topics that did not exist when they were looked for last.
    missing: Vec<Arc<str>>,
    pressure: Pressure,
    /// Since when the broker does not answer, or when it was asked last.
    unreachable: Option<Instant>,
}

impl<'a> Reader<'a> {
    fn new(what: Subscribe, start: Start, shared: &'a Shared) -> Result<Self, FeedError> {
        let consumer = what.source.consumer()?;
        let intake = Intake::new(&what.source.context, &what.categories);
        let pressure = Pressure::new(what.source.buffer);
        let missing = Vec::new();
        Ok(Self {
            what,
            start,
            shared,
            consumer,
            is_assigned: false,
            intake,
            missing,
            pressure,
            unreachable: None,
        })
    }

    fn read(&mut self) -> Result<(), FeedError> {
        self.connect_at_last()?;
        while !self.shared.is_abandoned() {
            match self.step()? {
                Next::Go => {}
                Next::Reconnect => {
                    thread::sleep(PAUSE);
                    self.connect_at_last()?;
                }
            }
        }
        Ok(())
    }

    /// Reads some records, and hands them on.
    fn step(&mut self) -> Result<Next, FeedError> {
        let (is_behind, action) = {
            let inner = self.shared.lock();
            (inner.merge.is_behind(), self.pressure.look(&inner, Instant::now()))
        };
        let wait = match action {
            Action::Read if is_behind || self.pressure.is_any_paused() => BUSY,
            Action::Read => IDLE,
            Action::Wait => {
                self.shared.reporter.state(FeedState::Full);
                thread::park_timeout(IDLE);
                return Ok(Next::Go);
            }
            Action::Pause => {
                self.shared.reporter.state(FeedState::Full);
                Duration::ZERO
            }
        };
        self.pause_and_resume()?;
        if action == Action::Read && self.unreachable.is_none() {
            self.shared.reporter.state(FeedState::Reading);
        }
        let (is_idle, trouble) = self.poll(wait)?;
        self.intake.hand_on(self.shared)?;
        if let Some(error) = trouble {
            match code_of(&error) {
                Some(Code::AutoOffsetReset) => {
                    self.find_loss()?;
                    return Ok(Next::Reconnect);
                }
                Some(
                    Code::UnknownTopicOrPartition | Code::UnknownTopic | Code::UnknownPartition,
                ) => {
                    return Ok(Next::Reconnect);
                }
                code if code.is_none_or(is_permanent) => {
                    return Err(FeedError::broker("read the topics", error));
                }
                Some(_) | None => self.missed(&FeedError::broker("read the topics", error)),
            }
        }
        if is_idle && is_behind {
            self.pass_over_ends();
        }
        if let Next::Reconnect = self.hear()? {
            return Ok(Next::Reconnect);
        }
        self.probe();
        self.shared.tell();
        if action == Action::Pause {
            thread::park_timeout(IDLE);
        }
        Ok(Next::Go)
    }

    /// Reads until there is nothing more at once, or enough. Returns whether there was nothing more, and
    /// what went wrong.
    fn poll(&mut self, mut wait: Duration) -> Result<(bool, Option<KafkaError>), FeedError> {
        while self.intake.len() < BATCH && self.intake.bytes() < BATCH_BYTES {
            match self.consumer.poll(wait) {
                None => return Ok((true, None)),
                Some(Ok(message)) => {
                    self.intake.read(&message)?;
                    if self.unreachable.is_some() {
                        self.unreachable = None;
                        self.consumer.context().forget_trouble();
                    }
                }
                // A partition is at its end. It is not said of which topic.
                Some(Err(KafkaError::PartitionEOF(_))) => return Ok((true, None)),
                Some(Err(error)) => return Ok((false, Some(error))),
            }
            wait = Duration::ZERO;
        }
        Ok((false, None))
    }

    /// Takes note of records that hold no event, the ends of transactions: they are passed over unseen.
    fn pass_over_ends(&self) {
        let Ok(passed) = self.consumer.position() else { return };
        let mut inner = self.shared.lock();
        for passed in passed.elements() {
            let Offset::Offset(next) = passed.offset() else { continue };
            if let Some(lane) = self.intake.lane(passed.topic(), passed.partition()) {
                inner.merge.reach(lane, next);
            }
        }
    }

    /// Makes use of what the publisher has said.
    fn hear(&mut self) -> Result<Next, FeedError> {
        let Some(known) = self.intake.progress.heard() else { return Ok(Next::Go) };
        let is_new = self.missing.iter().any(|topic| known.offsets.contains_key(&**topic));
        if is_new {
            return Ok(Next::Reconnect);
        }
        let mut ends = Vec::new();
        if !known.is_whole {
            match self.look_at_ends() {
                Ok(Some(found)) => ends = found,
                // A topic has come into being.
                Ok(None) => return Ok(Next::Reconnect),
                Err(error) if error.is_retryable() => {
                    self.missed(&error);
                    self.intake.progress.put_back(known);
                    return Ok(Next::Go);
                }
                Err(error) => return Err(error),
            }
        }
        let targets = self.intake.targets(&known)?;
        let mut inner = self.shared.lock();
        inner.merge.know(known.position, ends.into_iter().enumerate());
        inner.merge.know(known.position, targets);
        Ok(Next::Go)
    }

    /// Where the partitions end; `None` if there is a topic that was not there before.
    fn look_at_ends(&mut self) -> Result<Option<Vec<i64>>, FeedError> {
        if !self.missing.is_empty() {
            let (there, _) = source::existing(&self.consumer, &self.missing)?;
            if !there.is_empty() {
                return Ok(None);
            }
        }
        topics::ends(&self.consumer, &self.intake.places)
            .map(Some)
            .map_err(|error| FeedError::broker("look where the topics end", error))
    }

    /// What is not there any more, if that is so.
    fn find_loss(&self) -> Result<(), FeedError> {
        let places = &self.intake.places;
        let (Ok(begins), Ok(ends)) =
            (topics::begins(&self.consumer, places), topics::ends(&self.consumer, places))
        else {
            return Ok(());
        };
        for (lane, place) in places.iter().enumerate() {
            // A partition that has just got another leader may not know its end yet.
            if self.shared.lock().merge.reached(lane) < begins[lane] {
                let loss = Loss::OutOfRange { first: begins[lane], end: ends[lane] };
                return Err(self.lost(place, loss));
            }
        }
        Ok(())
    }

    fn lost(&self, place: &Place, loss: Loss) -> FeedError {
        let lane = self.intake.lane(&place.topic, place.partition);
        let wanted = lane.map_or(0, |lane| self.shared.lock().merge.reached(lane));
        let (topic, partition) = (place.topic.to_string(), place.partition);
        Lost { topic, partition, wanted, loss }.into()
    }

    fn pause_and_resume(&mut self) -> Result<(), FeedError> {
        let (pause, resume) = self.pressure.changes();
        let list = |lanes: &[usize]| {
            let mut list = TopicPartitionList::with_capacity(lanes.len());
            for lane in lanes {
                let Place { topic, partition } = &self.intake.places[*lane];
                list.add_partition(topic, *partition);
            }
            list
        };
        let failed = |error| FeedError::broker("pause and resume reading", error);
        if !pause.is_empty() {
            self.consumer.pause(&list(&pause)).map_err(failed)?;
        }
        if !resume.is_empty() {
            self.consumer.resume(&list(&resume)).map_err(failed)?;
        }
        Ok(())
    }

    /// Asks a broker that did not answer, now and then, whether it does.
    fn probe(&mut self) {
        let Some(since) = self.unreachable else { return };
        if since.elapsed() < Duration::from_secs(1) {
            return;
        }
        match self.look_at_ends() {
            Ok(_) => self.reached(),
            Err(error) => self.missed(&error),
        }
    }

    fn reached(&mut self) {
        self.unreachable = None;
        self.consumer.context().forget_trouble();
        self.shared.reporter.state(FeedState::Reading);
    }

    fn missed(&mut self, error: &FeedError) {
        let said = self.consumer.context().trouble();
        let reason = said.unwrap_or_else(|| text(error));
        self.unreachable = Some(Instant::now());
        self.shared.reporter.state(FeedState::Unreachable { reason });
    }
}
