//! What a broker has left open of a transaction that is over.
//!
//! When `init_transactions` returns, the coordinator has noted how the last transaction ended, and its
//! markers should be in all partitions. Kafka 4 (seen with 4.3.1, KAFKA-20734) passes over partitions that
//! have no leader at that moment, as when all that hold them have crashed. What was sent there stays
//! open, and whatever ends the next transaction of the same id decides over it too: events that were aborted
//! appear after all, and appear again, or committed ones are gone.
//!
//! So before a transaction begins, and brokers may have crashed before, all partitions are looked at. What
//! is open is decided first, by a transaction of its own that touches those partitions and ends as the one before
//! did. How that ended is known from this worker, from the checkpoint in the database, or from the partitions that do
//! have its marker. If none of them knows of a commit, nobody has seen one.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use rdkafka::{
    message::{Header, OwnedHeaders},
    producer::{BaseRecord, Producer as _},
};

use super::{
    producer::Failure,
    progress_record::ProgressRecord,
    reader::{Extent, Place, Reader},
    receipts::PROGRESS,
    record::ENDS_TRANSACTION,
    transaction::{CALL, failure, may_be_resumed},
    worker::{PAUSE, Worker},
};
use crate::ids::Position;

/// How long markers, and other stores' transactions in the same topics, may take to end by themselves.
const PATIENCE: Duration = Duration::from_secs(3);

/// Partitions with the offset at which what is open begins.
type Open = BTreeMap<Place, i64>;

/// Whose transactions may have been left open.
#[derive(Clone, Copy, Debug)]
pub(super) enum Before {
    /// This worker's: all were committed, or it would not go on.
    Own,
    /// A predecessor's. The last were committed at least up to here, by what the database says.
    Predecessor(Position),
}

/// How a transaction ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Committed,
    Aborted,
}

/// What is known of the last transactions.
#[derive(Debug, Default)]
struct Known {
    /// The record of progress that is open itself.
    open: Option<ProgressRecord>,
    /// Whether that one is committed, by what is known otherwise.
    is_committed: bool,
    /// How far partitions go by all progress that is committed.
    ends: BTreeMap<Place, i64>,
}

impl Known {
    /// How the transaction ended that a partition is open of; nothing if it is another store's.
    fn end_of(&self, before: Before, progress: &Place, place: &Place, since: i64) -> Option<End> {
        let is_committed = if place == progress {
            self.is_committed
        } else {
            self.ends.get(place).is_some_and(|end| *end > since)
        };
        match before {
            _ if is_committed => Some(End::Committed),
            // Where it is another's, nothing is aborted by it.
            Before::Predecessor(_) => Some(End::Aborted),
            Before::Own => None,
        }
    }
}

impl Worker {
    /// Decides what is open of this store's transactions, and waits until all progress can be read. No
    /// transaction may be under way.
    pub(super) fn settle(&mut self, before: Before) -> Result<(), Failure> {
        // What is said from now on is looked into next time.
        self.producer.context().take_doubt();
        let reader = self.reader()?;
        let progress: Place = (self.progress_topic.clone(), 0);
        let mut places = self.own_partitions(&reader)?;
        places.push(progress.clone());
        let ends = self.until_read(|| Ok(reader.ends(&places, Extent::All)?))?;
        let mut open = self.open(&reader, &ends)?;
        if !open.is_empty() {
            let known = self.known(&reader, &open, before)?;
            for end in [End::Committed, End::Aborted] {
                let alike = open
                    .iter()
                    .filter(|(place, since)| {
                        known.end_of(before, &progress, place, **since) == Some(end)
                    })
                    .map(|(place, _)| place.clone())
                    .collect::<Vec<_>>();
                if !alike.is_empty() {
                    self.end(&alike, end, known.open.as_ref())?;
                }
            }
        }
        // What is open now is another store's. Behind it nothing is committed for a reader, whosever it is.
        while open.contains_key(&progress) {
            open = self.open(&reader, &ends)?;
            tracing::debug!(topic = progress.0, "waiting for the transaction of another store");
        }
        Ok(())
    }

    /// What does not end by itself, of what lies below these ends.
    fn open(&mut self, reader: &Reader, ends: &Open) -> Result<Open, Failure> {
        let places: Vec<Place> = ends.keys().cloned().collect();
        let began = Instant::now();
        loop {
            let stable = self.until_read(|| Ok(reader.ends(&places, Extent::Committed)?))?;
            let open: Open = stable.into_iter().filter(|(place, end)| end < &ends[place]).collect();
            if open.is_empty() || began.elapsed() > PATIENCE {
                return Ok(open);
            }
            self.hear_after(PAUSE);
            self.check(&[])?;
        }
    }

    /// Finds out how the last transactions ended.
    fn known(&mut self, reader: &Reader, open: &Open, before: Before) -> Result<Known, Failure> {
        let (topic, key) = (self.progress_topic.clone(), self.transactional_id.clone());
        let mut known = Known::default();
        if let Some(since) = open.get(&(topic.clone(), 0)) {
            known.open = self.until_read(|| reader.progress_behind(&topic, &key, *since))?;
        }
        known.ends = self.until_read(|| reader.committed_ends(&topic, &key))?;
        let Some(record) = &known.open else { return Ok(known) };
        let mut is_committed = match before {
            Before::Own => true,
            Before::Predecessor(checkpoint) => record.position <= checkpoint,
        };
        // Or its last record in a partition that is decided is.
        for (place, end) in record.ends() {
            if is_committed {
                break;
            }
            if open.get(&place).is_none_or(|since| *since >= end) {
                is_committed = self.until_read(|| reader.is_committed(&place, end - 1))?;
            }
        }
        if is_committed {
            known.ends.extend(record.ends());
        }
        Ok(Known { is_committed, ..known })
    }

    /// Ends what is open in partitions by a transaction that ends like this.
    fn end(
        &mut self,
        places: &[Place],
        end: End,
        progress: Option<&ProgressRecord>,
    ) -> Result<(), Failure> {
        let context = &self.settings.context;
        tracing::warn!(
            context,
            partitions = ?places,
            ?end,
            "a broker has left a transaction open in these partitions; it is ended as it was elsewhere"
        );
        let begun = self.producer.begin_transaction();
        begun.map_err(|error| failure("begin a transaction", error))?;
        self.producer.context().start_batch();
        let key = self.transactional_id.clone();
        for (topic, partition) in places {
            // Committed, the progress says again what it said, or a reader would take it for gone.
            let value = progress.filter(|_| *topic == self.progress_topic);
            let value = value.map(ProgressRecord::to_json);
            let header = Header { key: ENDS_TRANSACTION, value: Some("") };
            let mut record = BaseRecord::with_opaque_to(topic, PROGRESS)
                .partition(*partition)
                .key(key.as_bytes())
                .headers(OwnedHeaders::new().insert(header));
            record.payload = value.as_deref();
            self.enqueue(record, &[])?;
        }
        self.await_all(&[])?;
        match end {
            End::Committed => self.commit(),
            End::Aborted => self.abort_all(),
        }
    }

    /// Aborts a transaction, for as long as that takes.
    fn abort_all(&mut self) -> Result<(), Failure> {
        loop {
            let Err(error) = self.producer.abort_transaction(CALL) else { return Ok(()) };
            if !may_be_resumed(&error) {
                return Err(failure("abort a transaction", error));
            }
            self.reaches_broker();
            self.check(&[])?;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(topic: &str) -> Place {
        (topic.to_owned(), 2)
    }

    fn end(known: &Known, before: Before, topic: &str, since: i64) -> Option<End> {
        known.end_of(before, &place("progress"), &place(topic), since)
    }

    const PREDECESSOR: Before = Before::Predecessor(Position::START);

    #[test]
    fn what_progress_tells_of_is_committed() {
        let known = Known { ends: [(place("loans"), 7)].into(), ..Known::default() };
        for before in [Before::Own, PREDECESSOR] {
            assert_eq!(end(&known, before, "loans", 3), Some(End::Committed));
        }
    }

    #[test]
    fn what_comes_behind_was_not_committed_by_a_predecessor() {
        let known = Known { ends: [(place("loans"), 7)].into(), ..Known::default() };
        assert_eq!(end(&known, PREDECESSOR, "loans", 7), Some(End::Aborted));
        assert_eq!(end(&known, PREDECESSOR, "cards", 0), Some(End::Aborted));
        assert_eq!(end(&known, PREDECESSOR, "progress", 0), Some(End::Aborted));
    }

    #[test]
    fn what_comes_behind_all_of_ones_own_is_anothers() {
        let known = Known { ends: [(place("loans"), 7)].into(), ..Known::default() };
        assert_eq!(end(&known, Before::Own, "loans", 7), None);
        assert_eq!(end(&known, Before::Own, "progress", 0), None);
    }

    #[test]
    fn progress_that_is_known_otherwise_is_committed() {
        let open = Some(ProgressRecord::new(Position::new(9)));
        let known = Known { open, is_committed: true, ..Known::default() };
        for before in [Before::Own, Before::Predecessor(Position::new(9))] {
            assert_eq!(end(&known, before, "progress", 40), Some(End::Committed));
        }
    }
}
