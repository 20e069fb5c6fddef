//! What a producer's thread asks the broker, and how it waits for an answer.

use std::collections::BTreeMap;

use super::{
    producer::{Failure, broker_error},
    progress_record::ProgressRecord,
    reader::{Extent, Place, Reader, Unread},
    receipts::is_permanent,
    topics,
    worker::{PAUSE, Worker, code_of},
};

type Ends = BTreeMap<String, BTreeMap<i32, i64>>;

impl Worker {
    /// Where all partitions end, whatever is in there.
    pub(super) fn all_ends(&mut self) -> Result<Ends, Failure> {
        let reader = self.reader()?;
        let partitions = self.own_partitions(&reader)?;
        let found = self.until_read(|| Ok(reader.ends(&partitions, Extent::All)?))?;
        let mut ends = Ends::new();
        for ((topic, partition), end) in found.into_iter().filter(|(_, end)| *end > 0) {
            ends.entry(topic).or_default().insert(partition, end);
        }
        Ok(ends)
    }

    /// The partitions of all topics that events go to.
    pub(super) fn own_partitions(&mut self, reader: &Reader) -> Result<Vec<Place>, Failure> {
        let (settings, ready) = (self.settings.clone(), self.topics.clone());
        let progress = self.progress_topic.clone();
        let topics = self.until_read(|| {
            Ok(reader.topics(|name| {
                topics::is_of(&settings.context, name)
                    || settings.plan.declared().any(|declared| declared == name)
                    || (ready.are_ready(name) && name != progress)
            })?)
        })?;
        // Kafka counts partitions in i32.
        let count = |partitions: usize| i32::try_from(partitions).unwrap_or(i32::MAX);
        let of = |(topic, partitions): (String, usize)| {
            (0..count(partitions)).map(move |partition| (topic.clone(), partition))
        };
        Ok(topics.into_iter().flat_map(of).collect())
    }

    /// How far the store is published, by what the broker has.
    pub(super) fn read_progress(&mut self) -> Result<Option<ProgressRecord>, Failure> {
        let reader = self.reader()?;
        let (topic, key) = (self.progress_topic.clone(), self.transactional_id.clone());
        self.until_read(|| reader.progress(&topic, &key))
    }

    pub(super) fn reader(&self) -> Result<Reader, Failure> {
        Reader::new(&self.settings.client)
            .map_err(|error| Failure::Refused(broker_error("create a consumer", error)))
    }

    /// Reads, again and again, until the broker answers.
    pub(super) fn until_read<T>(
        &mut self,
        read: impl Fn() -> Result<T, Unread>,
    ) -> Result<T, Failure> {
        loop {
            let failed = match read() {
                Ok(found) => return Ok(found),
                Err(Unread::Record(source)) => {
                    let action = format!(
                        "read in {} how far {} is published",
                        self.progress_topic, self.transactional_id
                    );
                    return Err(Failure::Refused(broker_error(action, source)));
                }
                Err(Unread::Broker(error)) => error,
            };
            if code_of(&failed).is_some_and(is_permanent) {
                let action = "read how far the store is published";
                return Err(Failure::Refused(broker_error(action, failed)));
            }
            tracing::debug!(error = crate::error::chain(&failed), "cannot read from Kafka yet");
            self.reaches_broker();
            self.hear_after(PAUSE);
            self.check(&[])?;
        }
    }

    /// Asks, again and again, until the broker answers.
    pub(super) fn until_answered(
        &mut self,
        ask: impl Fn(&mut Self) -> bool,
    ) -> Result<(), Failure> {
        while !ask(self) {
            self.check(&[])?;
            self.hear_after(PAUSE);
        }
        Ok(())
    }
}
