//! What was read from topics and not handed on yet.

use std::sync::Arc;

use annals_eventstore::{
    Position, Recorded,
    kafka::{RecordError, RecordReader},
};
use rdkafka::{Message, message::BorrowedMessage};

use super::{
    error::{FeedError, Loss, Lost, Undecodable},
    merge::Entry,
    progress::{Known, Progress},
    record::{self, RawRecord},
    subscription::Shared,
    topics::Place,
};

/// Tells records apart and keeps them until they are handed on.
#[derive(Debug)]
pub(super) struct Intake {
    categories: Vec<String>,
    records: RecordReader,
    pub(super) progress: Progress,
    /// The partition of each lane of the merge.
    pub(super) places: Vec<Place>,
    topics: Vec<Topic>,
    /// By lane: the offset behind its last event, as the publisher said last.
    told: Vec<(Position, i64)>,
    read: Vec<(usize, Read)>,
    bytes: usize,
}

/// A topic, with the lanes of its partitions by their number.
#[derive(Debug)]
struct Topic {
    name: Arc<str>,
    lanes: Vec<Option<usize>>,
}

#[derive(Debug)]
enum Read {
    Event(Entry<Option<Recorded>>),
    Undecodable(Undecodable),
}

impl Intake {
    pub(super) fn new(context: &Arc<str>, categories: &[String]) -> Self {
        Self {
            categories: categories.to_vec(),
            records: RecordReader::new(context),
            progress: Progress::of(context),
            places: Vec::new(),
            topics: Vec::new(),
            told: Vec::new(),
            read: Vec::new(),
            bytes: 0,
        }
    }

    /// What reads records as events.
    pub(super) fn records(&mut self) -> &mut RecordReader {
        &mut self.records
    }

    /// Sets what the lanes are. Those that there were stay as they are.
    pub(super) fn set_places(&mut self, places: Vec<Place>, topics: &[(Arc<str>, i32)]) {
        let topic = |(name, count): &(Arc<str>, i32)| {
            let lane = |partition| {
                places.iter().position(|place| place.topic == *name && place.partition == partition)
            };
            Topic { name: name.clone(), lanes: (0..*count).map(lane).collect() }
        };
        self.topics = topics.iter().map(topic).collect();
        self.told.resize(places.len(), (Position::START, 0));
        self.places = places;
        // What was read before the places were looked for again is read again.
        self.read.clear();
        self.bytes = 0;
    }

    /// The lane of a partition.
    pub(super) fn lane(&self, topic: &str, partition: i32) -> Option<usize> {
        let topic = self.topics.iter().find(|found| *found.name == *topic)?;
        *topic.lanes.get(usize::try_from(partition).ok()?)?
    }

    /// Takes a record.
    pub(super) fn read(&mut self, message: &BorrowedMessage<'_>) -> Result<(), FeedError> {
        let (topic, offset) = (message.topic(), message.offset());
        let Some(lane) = self.lane(topic, message.partition()) else {
            if *topic == *self.progress.topic {
                self.progress.read(offset, message.key(), message.payload())?;
            }
            return Ok(());
        };
        let read = match record::read(&mut self.records, message) {
            Ok((event, bytes)) => {
                self.bytes += bytes;
                let position = event.position;
                let category = event.stream.category();
                let is_wanted = self.categories.iter().any(|wanted| wanted == category);
                let event = is_wanted.then_some(event);
                Read::Event(Entry { position, offset, bytes, event })
            }
            Err(RecordError::EndsTransaction) => return Ok(()),
            Err(reason) => {
                self.bytes += message.payload_len();
                let (record, reason) = (RawRecord::of(message), Arc::new(reason));
                Read::Undecodable(Undecodable { record, reason })
            }
        };
        self.read.push((lane, read));
        Ok(())
    }

    /// How many records were read.
    pub(super) fn len(&self) -> usize {
        self.read.len()
    }

    /// How much memory they take.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Hands on what was read.
    pub(super) fn hand_on(&mut self, shared: &Shared) -> Result<(), FeedError> {
        if self.read.is_empty() {
            return Ok(());
        }
        let mut inner = shared.lock();
        self.bytes = 0;
        for (lane, read) in self.read.drain(..) {
            let reached = inner.merge.reached(lane);
            match read {
                Read::Event(entry) if entry.offset >= reached => inner.merge.read(lane, entry),
                // It was read before. If it lies behind what was read then, it is another one.
                Read::Event(entry) if entry.position > inner.merge.last(lane) => {
                    let Place { topic, partition } = &self.places[lane];
                    return Err(FeedError::Lost(Lost {
                        topic: topic.to_string(),
                        partition: *partition,
                        wanted: reached,
                        loss: Loss::TopicReplaced,
                    }));
                }
                Read::Undecodable(undecodable) if undecodable.record.offset >= reached => {
                    inner.merge.reach(lane, undecodable.record.offset + 1);
                    inner.undecodable.push_back(undecodable);
                }
                Read::Event(_) | Read::Undecodable(_) => {}
            }
        }
        Ok(())
    }

    /// A partition that is not read is one that there was.
    fn check_count(&self, topic: &str, partition: i32) -> Result<(), FeedError> {
        let Some(known) = self.topics.iter().find(|known| *known.name == *topic) else {
            return Ok(());
        };
        if usize::try_from(partition).is_ok_and(|partition| partition < known.lanes.len()) {
            return Ok(());
        }
        Err(FeedError::PartitionAdded { topic: topic.to_owned(), partition })
    }

    /// The targets of lanes, as the publisher tells them.
    pub(super) fn targets(&mut self, known: &Known) -> Result<Vec<(usize, i64)>, FeedError> {
        let mut targets = Vec::new();
        for (topic, partitions) in &known.offsets {
            for (partition, next) in partitions {
                let Some(lane) = self.lane(topic, *partition) else {
                    self.check_count(topic, *partition)?;
                    continue;
                };
                let (position, told) = &mut self.told[lane];
                // A topic that was made anew begins at 0 again.
                if known.position > *position && *next < *told {
                    return Err(FeedError::Lost(Lost {
                        topic: topic.clone(),
                        partition: *partition,
                        wanted: *told,
                        loss: Loss::TopicReplaced,
                    }));
                }
                (*position, *told) = (known.position, (*told).max(*next));
                targets.push((lane, *next));
            }
        }
        Ok(targets)
    }
}
