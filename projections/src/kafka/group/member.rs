//! The thread of a member: it polls, so that the group knows of it.
//!
//! It subscribes to one topic only, whose partitions stand for those of all topics, which have equally
//! many. So one topic's assignor does for several: cooperative-sticky does not keep partitions of one
//! number together over topics, and range, which does, takes all partitions from all members at each
//! change. While there is no topic yet, that of progress stands for all that will be.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
        mpsc,
    },
    time::{Duration, Instant},
};

use annals_eventstore::kafka::ProgressRecord;
use rdkafka::{
    ClientContext, Offset, TopicPartitionList,
    config::RDKafkaLogLevel,
    consumer::{BaseConsumer, CommitMode, Consumer, ConsumerContext},
    error::KafkaError,
    types::{RDKafkaErrorCode as Code, RDKafkaRespErr},
};
use tokio::sync::mpsc::UnboundedSender;

use super::{Change, Commit, Revoked, numbers};
use crate::{
    kafka::{
        client::Connections,
        error::{FeedError, code_of, is_permanent},
        offsets::{Offsets, Partitions},
        source::{self, PAUSE, Source},
        topics,
    },
    worker::failure::text,
};

/// How often to look which topics there are.
const LOOK: Duration = Duration::from_secs(5);
/// The same while there is none.
const LOOK_SOON: Duration = Duration::from_millis(500);
/// How often to commit.
const COMMIT: Duration = Duration::from_secs(1);

/// What a member and its thread share.
#[derive(Debug, Default)]
pub(super) struct Shared {
    stopped: AtomicBool,
    pub(super) commit: Commit,
}

impl Shared {
    pub(super) fn stop(&self) {
        self.stopped.store(true, Ordering::Release);
    }

    fn is_stopped(&self) -> bool {
        self.stopped.load(Ordering::Acquire)
    }
}

pub(super) struct Member {
    consumer: BaseConsumer<Rebalances>,
    events: UnboundedSender<Result<Change, FeedError>>,
    shared: Arc<Shared>,
    topics: Vec<Arc<str>>,
    progress: Arc<str>,
    context: Arc<str>,
    /// The topic that stands for all.
    subscribed: Option<Arc<str>>,
    looked: Option<Instant>,
    committed: (Instant, Offsets),
    is_unreachable: bool,
}

impl Member {
    pub(super) fn new(
        source: &Source,
        more: &[(&str, String)],
        topics: Vec<Arc<str>>,
        events: UnboundedSender<Result<Change, FeedError>>,
        shared: Arc<Shared>,
        handover: Duration,
    ) -> Result<Self, FeedError> {
        let progress: Arc<str> = ProgressRecord::topic(&source.context).into();
        let rebalances = Rebalances {
            events: events.clone(),
            shared: shared.clone(),
            handover,
            progress: progress.clone(),
            connections: Connections::default(),
        };
        let more: Vec<_> = more.iter().map(|(key, value)| (*key, &**value)).collect();
        let consumer = source.client(&more, rebalances)?;
        Ok(Self {
            consumer,
            events,
            shared,
            topics,
            progress,
            context: source.context.clone(),
            subscribed: None,
            looked: None,
            committed: (Instant::now(), Offsets::new()),
            is_unreachable: false,
        })
    }

    /// Is a member until told to stop. Dropping the consumer leaves the group.
    pub(super) fn run(mut self) {
        while !self.shared.is_stopped() {
            if let Err(error) = self.step() {
                // Nobody may be there to hear it, or to hand anything over.
                let _ = self.events.send(Err(error));
                self.shared.stop();
                return;
            }
        }
        self.commit(CommitMode::Sync);
    }

    fn step(&mut self) -> Result<(), FeedError> {
        let wait = if self.is_of_topic() { LOOK } else { LOOK_SOON };
        if self.looked.is_none_or(|looked| looked.elapsed() > wait) {
            self.looked = Some(Instant::now());
            match self.look() {
                Ok(()) => self.reached(),
                Err(error) if error.is_retryable() => self.missed(&error),
                Err(error) => return Err(error),
            }
        }
        if self.committed.0.elapsed() > COMMIT {
            self.committed.0 = Instant::now();
            self.commit(CommitMode::Async);
        }
        match self.consumer.poll(PAUSE) {
            // Nothing is assigned to the client, so there are no records.
            None | Some(Ok(_) | Err(KafkaError::PartitionEOF(_))) => Ok(()),
            Some(Err(error)) => {
                let code = code_of(&error);
                let is_missing = |code| {
                    matches!(
                        code,
                        Code::UnknownTopicOrPartition | Code::UnknownTopic | Code::UnknownPartition
                    )
                };
                if code.is_some_and(is_missing) {
                    self.looked = None;
                    return Ok(());
                }
                let error = FeedError::broker("be a member of the group", error);
                if code.is_none_or(is_permanent) {
                    return Err(error);
                }
                self.missed(&error);
                Ok(())
            }
        }
    }

    fn is_of_topic(&self) -> bool {
        self.subscribed.as_ref().is_some_and(|topic| *topic != self.progress)
    }

    /// Subscribes to the first topic that there is: all members find the same.
    fn look(&mut self) -> Result<(), FeedError> {
        let (there, _) = source::existing(&self.consumer, &self.topics)?;
        let topic = match there.into_iter().next() {
            Some((topic, _)) => topic,
            None => {
                let found = topics::partitions(&self.consumer, &self.progress);
                let action = "look for the topic of progress";
                if found.map_err(|error| FeedError::broker(action, error))?.is_none() {
                    return Err(FeedError::NotPublished {
                        context: self.context.to_string(),
                        topic: self.progress.to_string(),
                    });
                }
                self.progress.clone()
            }
        };
        if self.subscribed.as_ref() != Some(&topic) {
            self.consumer
                .subscribe(&[&topic])
                .map_err(|error| FeedError::broker("join the group", error))?;
            self.subscribed = Some(topic);
        }
        Ok(())
    }

    fn commit(&mut self, mode: CommitMode) {
        let offsets =
            self.shared.commit.lock().unwrap_or_else(std::sync::PoisonError::into_inner).clone();
        if offsets == self.committed.1 {
            return;
        }
        let mut list = TopicPartitionList::new();
        for (topic, partition, next) in offsets.iter() {
            if let Err(error) = list.add_partition_offset(topic, partition, Offset::Offset(next)) {
                tracing::debug!(%error, topic, partition, next, "no offset to commit");
            }
        }
        match self.consumer.commit(&list, mode) {
            Ok(()) => self.committed.1 = offsets,
            Err(error) => tracing::debug!(%error, "offsets are not committed in Kafka"),
        }
    }

    fn reached(&mut self) {
        if std::mem::take(&mut self.is_unreachable) {
            self.consumer.context().connections.forget_trouble();
            tracing::info!("Kafka answers the group again");
        }
    }

    fn missed(&mut self, error: &FeedError) {
        if !std::mem::replace(&mut self.is_unreachable, true) {
            let said = self.consumer.context().connections.trouble();
            let reason = said.unwrap_or_else(|| text(error));
            tracing::warn!(reason, "Kafka does not answer; the group waits for it");
        }
    }
}

/// Passes on what the group decides.
struct Rebalances {
    events: UnboundedSender<Result<Change, FeedError>>,
    shared: Arc<Shared>,
    handover: Duration,
    progress: Arc<str>,
    connections: Connections,
}

impl Rebalances {
    fn partitions(&self, list: &TopicPartitionList) -> Option<Partitions> {
        let elements = list.elements();
        if elements.iter().any(|element| *element.topic() == *self.progress) {
            return Some(Partitions::All);
        }
        (!elements.is_empty()).then(|| numbers(elements.iter().map(|element| element.partition())))
    }

    /// Tells the owner to give partitions up, and waits until that is done.
    fn revoke(&self, partitions: Partitions, is_lost: bool) {
        let (done, is_done) = mpsc::sync_channel(1);
        let revoked = Revoked { partitions, is_lost, _done: done };
        if self.events.send(Ok(Change::Revoked(revoked))).is_err() || is_lost {
            return;
        }
        let started = Instant::now();
        // It is done when the other end is dropped.
        while let Err(mpsc::RecvTimeoutError::Timeout) = is_done.recv_timeout(PAUSE) {
            if self.shared.is_stopped() {
                return;
            }
            if started.elapsed() >= self.handover {
                tracing::warn!("partitions go to others before they were given up");
                return;
            }
        }
    }
}

impl ConsumerContext for Rebalances {
    fn rebalance(
        &self,
        consumer: &BaseConsumer<Self>,
        error: RDKafkaRespErr,
        list: &mut TopicPartitionList,
    ) {
        // The client itself gets no partitions: it is to read nothing.
        let nothing = TopicPartitionList::new();
        let partitions = self.partitions(list);
        let result = if error == RDKafkaRespErr::RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS {
            let result = consumer.incremental_assign(&nothing);
            if let Some(partitions) = partitions {
                // Nobody may be there to hear it.
                let _ = self.events.send(Ok(Change::Assigned(partitions)));
            }
            result
        } else {
            if let Some(partitions) = partitions {
                self.revoke(partitions, consumer.assignment_lost());
            }
            consumer.incremental_unassign(&nothing)
        };
        if let Err(error) = result {
            tracing::warn!(%error, "the group's decision was not taken over");
        }
    }
}

impl ClientContext for Rebalances {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        self.connections.log(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        self.connections.error(error, reason);
    }
}
