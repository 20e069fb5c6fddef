//! Where reading begins: how far the publisher is, where the topics are, and what is behind them.

use std::{sync::Arc, thread, time::Instant};

use annals_eventstore::Position;
use rdkafka::{
    Message, Offset, TopicPartitionList, consumer::Consumer, error::KafkaError,
    types::RDKafkaErrorCode as Code,
};

use super::{
    super::{
        error::{FeedError, Loss, Lost},
        merge::Merge,
        offsets::Start,
        resumed::{self, Resumed},
        source::{self, PAUSE},
        topics::{self, BROKER_TIMEOUT, Place},
    },
    IDLE, Reader,
};

/// How many of the last records of the topic of progress are read at first.
const TAIL: i64 = 64;
/// What may only not be known yet is looked for again so often.
const LOOKS: u32 = 15;

/// Whether what is not there may be there in a moment: a partition that has just got another leader may not
/// know its end, and not all brokers know a topic at once that has come into being.
fn may_come(lost: &Lost) -> bool {
    match lost.loss {
        Loss::OutOfRange { end, .. } => lost.wanted > end,
        Loss::TopicGone => true,
        Loss::TopicReplaced => false,
    }
}

impl Reader<'_> {
    /// Connects, as often as it takes.
    pub(super) fn connect_at_last(&mut self) -> Result<(), FeedError> {
        let mut looks = 0;
        while !self.shared.is_abandoned() {
            match self.connect(looks) {
                Ok(()) => {
                    self.reached();
                    self.shared.tell();
                    return Ok(());
                }
                Err(FeedError::Lost(lost)) if looks < LOOKS && may_come(&lost) => {
                    looks += 1;
                    thread::sleep(2 * PAUSE);
                }
                Err(error) if error.is_retryable() => {
                    // Hears what there is to say about it. Nothing is assigned.
                    self.consumer.poll(PAUSE);
                    self.missed(&error);
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Finds out how far the publisher is, where the topics are, and begins to read there.
    /// `looks` says how often that was tried before.
    fn connect(&mut self, looks: u32) -> Result<(), FeedError> {
        let failed = |action: &str, error| FeedError::broker(action, error);
        if std::mem::take(&mut self.is_assigned) {
            self.consumer = self.what.source.consumer()?;
        }
        let progress = self.intake.progress.topic.clone();
        topics::partitions(&self.consumer, &progress)
            .map_err(|error| failed("look for the topic of progress", error))?
            .ok_or_else(|| self.intake.progress.not_published())?;
        // First what is published, and then the ends of the partitions: they are behind it.
        let next = self.read_tail(&progress)?;
        let mut known = self.intake.progress.heard().unwrap_or_default();

        let names = self.what.source.topics_of(&self.what.categories);
        let (topics, missing) = source::existing(&self.consumer, &names)?;
        let old = self.intake.places.len();
        if let Some(place) = self.intake.places.iter().find(|place| missing.contains(&place.topic))
        {
            return Err(self.lost(place, Loss::TopicGone));
        }
        // Without it, what the publisher says would be taken for all.
        if let Some(topic) = missing.iter().find(|topic| known.offsets.contains_key(&***topic)) {
            let place = Place { topic: topic.clone(), partition: 0 };
            return Err(self.lost(&place, Loss::TopicGone));
        }
        let mut places = self.intake.places.clone();
        places.extend(
            source::places(&topics, &self.what.partitions)
                .filter(|place| !self.intake.places.contains(place)),
        );
        let begins = topics::begins(&self.consumer, &places);
        let begins = begins.map_err(|error| failed("look where the topics begin", error))?;
        let ends = topics::ends(&self.consumer, &places);
        let ends = ends.map_err(|error| failed("look where the topics end", error))?;

        let mut wanted = Vec::with_capacity(places.len());
        {
            let mut inner = self.shared.lock();
            if old == 0 && self.start == Start::Latest && inner.merge.end() == Position::START {
                inner.merge = Merge::after(known.position);
            }
            for (lane, place) in places.iter().enumerate() {
                wanted.push(if lane < old {
                    inner.merge.reached(lane)
                } else {
                    match &self.start {
                        Start::Earliest => begins[lane],
                        Start::Latest => ends[lane],
                        Start::At(resume) => {
                            resume.offsets.get(&place.topic, place.partition).unwrap_or(0)
                        }
                    }
                });
            }
        }
        for (lane, place) in places.iter().enumerate() {
            let (first, end, wanted) = (begins[lane], ends[lane], wanted[lane]);
            if !(first..=end).contains(&wanted) {
                let loss = Loss::OutOfRange { first, end };
                let (topic, partition) = (place.topic.to_string(), place.partition);
                return Err(Lost { topic, partition, wanted, loss }.into());
            }
        }

        for (lane, Place { topic, partition }) in places.iter().enumerate() {
            let Some(told) = known.offsets.get_mut(&**topic) else { continue };
            let (first, end) = (begins[lane], ends[lane]);
            let Some(wanted) = told.get(partition).copied().filter(|told| *told > end) else {
                continue;
            };
            if looks < LOOKS {
                let (topic, loss) = (topic.to_string(), Loss::OutOfRange { first, end });
                return Err(Lost { topic, partition: *partition, wanted, loss }.into());
            }
            // That was said of a topic of this name that is gone.
            told.remove(partition);
        }

        let mut assignment = TopicPartitionList::with_capacity(places.len() + 1);
        let mut assign = |topic: &str, partition, offset| {
            assignment
                .add_partition_offset(topic, partition, Offset::Offset(offset))
                .map_err(|error| failed("choose what to read", error))
        };
        assign(&progress, 0, next)?;
        for (place, wanted) in places.iter().zip(&wanted) {
            assign(&place.topic, place.partition, *wanted)?;
        }
        self.check_resumed(&places, &begins, &wanted)?;
        self.is_assigned = true;
        self.consumer.assign(&assignment).map_err(|error| failed("choose what to read", error))?;

        // A topic that comes into being later is read from its beginning.
        if old == 0 && self.start == Start::Latest {
            self.start = Start::Earliest;
        }
        self.missing = missing;
        self.pressure.restart(places.len());
        let mut inner = self.shared.lock();
        for wanted in &wanted[old..] {
            inner.merge.add_lane(*wanted);
        }
        for (lane, wanted) in wanted.iter().enumerate() {
            inner.merge.reach(lane, *wanted);
        }
        inner.places = places.clone().into();
        self.intake.set_places(places, &topics);
        let targets = self.intake.targets(&known)?;
        inner.merge.know(known.position, ends.into_iter().enumerate());
        inner.merge.know(known.position, targets);
        Ok(())
    }

    /// Makes sure that topics were not made anew since they were read before.
    fn check_resumed(
        &mut self,
        places: &[Place],
        begins: &[i64],
        wanted: &[i64],
    ) -> Result<(), FeedError> {
        let resumed = {
            let inner = self.shared.lock();
            let last = |lane| match (&self.start, lane < self.intake.places.len()) {
                (_, true) => Some(inner.merge.last(lane)),
                (Start::At(resume), false) => Some(resume.position),
                (Start::Earliest | Start::Latest, false) => None,
            };
            let resumed = places.iter().enumerate().filter_map(|(lane, place)| {
                let (first, wanted) = (begins[lane], wanted[lane]);
                let last = last(lane).filter(|_| wanted > first)?;
                Some(Resumed { place: place.clone(), first, wanted, last })
            });
            resumed.collect::<Vec<_>>()
        };
        let is_abandoned = || self.shared.is_abandoned();
        resumed::check(&self.what.source, self.intake.records(), &resumed, is_abandoned)
    }

    /// Reads the end of the topic of progress. Returns the offset behind it.
    fn read_tail(&mut self, topic: &Arc<str>) -> Result<i64, FeedError> {
        let failed = |error| FeedError::broker("read the publisher's progress", error);
        let place = [Place { topic: topic.clone(), partition: 0 }];
        let first = topics::begins(&self.consumer, &place).map_err(failed)?[0];
        let end = topics::ends(&self.consumer, &place).map_err(failed)?[0];
        let mut tail = TAIL;
        loop {
            self.intake.progress.restart();
            let from = first.max(end - tail);
            let mut assignment = TopicPartitionList::with_capacity(1);
            let offset = Offset::Offset(from);
            assignment.add_partition_offset(topic, 0, offset).map_err(failed)?;
            let consumer = self.what.source.consumer()?;
            consumer.assign(&assignment).map_err(failed)?;
            let mut next = from;
            let started = Instant::now();
            while next < end {
                match consumer.poll(IDLE) {
                    Some(Ok(message)) => {
                        next = message.offset() + 1;
                        let (key, value) = (message.key(), message.payload());
                        self.intake.progress.read(message.offset(), key, value)?;
                    }
                    Some(Err(KafkaError::PartitionEOF(_))) => break,
                    Some(Err(error)) => return Err(failed(error)),
                    None => {}
                }
                if started.elapsed() > 3 * BROKER_TIMEOUT || self.shared.is_abandoned() {
                    return Err(failed(KafkaError::MessageConsumption(Code::OperationTimedOut)));
                }
            }
            let known = self.intake.progress.heard();
            if known.is_some() || from <= first {
                if let Some(known) = known {
                    self.intake.progress.put_back(known);
                }
                return Ok(next.max(end));
            }
            // All that was there are the ends of transactions.
            tail = tail.saturating_mul(8);
        }
    }
}
