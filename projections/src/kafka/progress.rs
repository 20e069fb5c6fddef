//! What the publisher says of how far it has come. Pure.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use annals_eventstore::{Position, kafka::ProgressRecord};

use super::error::FeedError;

/// All up to a position is published, and before these offsets of the partitions that are named.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Known {
    pub(super) position: Position,
    pub(super) offsets: BTreeMap<String, BTreeMap<i32, i64>>,
    /// Whether nothing was said in between that was not heard. If something was, other partitions have
    /// moved too, and it takes a look at their ends to know how far.
    pub(super) is_whole: bool,
}

/// Follows the topic of progress.
#[derive(Debug)]
pub(super) struct Progress {
    pub(super) topic: Arc<str>,
    context: Arc<str>,
    publishers: BTreeSet<String>,
    /// The offset of the last record.
    last: Option<i64>,
    /// How far records lie apart: 1, or 2 where each is a transaction of its own, with a record at its end
    /// that readers do not see.
    step: Option<i64>,
    position: Position,
    heard: Option<Known>,
}

impl Progress {
    pub(super) fn of(context: &Arc<str>) -> Self {
        Self {
            topic: ProgressRecord::topic(context).into(),
            context: context.clone(),
            publishers: BTreeSet::new(),
            last: None,
            step: None,
            position: Position::START,
            heard: None,
        }
    }

    /// Begins anew: what comes next does not follow on what was heard before.
    pub(super) fn restart(&mut self) {
        (self.last, self.step, self.heard) = (None, None, None);
        self.publishers.clear();
    }

    /// Takes a record.
    pub(super) fn read(
        &mut self,
        offset: i64,
        key: Option<&[u8]>,
        value: Option<&[u8]>,
    ) -> Result<(), FeedError> {
        let step = self.last.replace(offset).map(|last| offset - last);
        // Compaction takes records away. Then the distance is another one, or a large one.
        let is_next = step.is_some() && step <= Some(2) && step == self.step;
        self.step = step;
        let publisher = String::from_utf8_lossy(key.unwrap_or_default()).into_owned();
        let Some(value) = value else {
            self.publishers.remove(&publisher);
            return Ok(());
        };
        self.publishers.insert(publisher);
        if self.publishers.len() > 1 {
            return Err(FeedError::SeveralStores {
                topic: self.topic.to_string(),
                publishers: self.publishers.iter().cloned().collect(),
            });
        }
        let record = ProgressRecord::parse(value).map_err(|error| FeedError::Progress {
            topic: self.topic.to_string(),
            offset,
            source: Arc::new(error),
        })?;
        let is_late = record.position < self.position;
        self.position = self.position.max(record.position);
        let heard = self.heard.get_or_insert(Known { is_whole: true, ..Known::default() });
        heard.position = self.position;
        heard.is_whole &= is_next;
        if is_late {
            // A publisher that was paused says late what another has said before, of what it sent once more.
            return Ok(());
        }
        for (topic, partitions) in record.offsets {
            let known = heard.offsets.entry(topic).or_default();
            for (partition, next) in partitions {
                let known = known.entry(partition).or_default();
                *known = next.max(*known);
            }
        }
        Ok(())
    }

    /// What was heard since it was asked last.
    pub(super) fn heard(&mut self) -> Option<Known> {
        self.heard.take()
    }

    /// Puts back what could not be made use of.
    pub(super) fn put_back(&mut self, known: Known) {
        debug_assert!(self.heard.is_none(), "nothing is heard meanwhile");
        self.heard = Some(known);
    }

    /// The error that there is no such topic.
    pub(super) fn not_published(&self) -> FeedError {
        FeedError::NotPublished { context: self.context.to_string(), topic: self.topic.to_string() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn progress() -> Progress {
        Progress::of(&"lending".into())
    }

    fn read(progress: &mut Progress, offset: i64, position: i64, next: i64) {
        let record = ProgressRecord::new(Position::new(position)).with_offset("t", 0, next);
        progress.read(offset, Some(b"lending.publisher.a"), Some(&record.to_json())).unwrap();
    }

    fn is_whole(progress: &mut Progress) -> bool {
        progress.heard().unwrap().is_whole
    }

    #[test]
    fn what_compaction_took_away_is_noticed() {
        for step in [1, 2] {
            let mut progress = progress();
            read(&mut progress, 100, 1, 1);
            assert!(!is_whole(&mut progress), "nothing is known of what was before");
            read(&mut progress, 100 + step, 2, 2);
            assert!(!is_whole(&mut progress), "it may be every second one");
            read(&mut progress, 100 + 2 * step, 3, 3);
            read(&mut progress, 100 + 3 * step, 4, 4);
            assert!(is_whole(&mut progress));
            read(&mut progress, 100 + 4 * step, 5, 5);
            read(&mut progress, 100 + 6 * step, 7, 6);
            assert!(!is_whole(&mut progress), "one is missing");
            read(&mut progress, 100 + 8 * step, 9, 7);
            assert!(step == 1 || !is_whole(&mut progress), "one is missing again");
        }
    }

    #[test]
    fn records_add_up() {
        let mut progress = progress();
        read(&mut progress, 0, 7, 5);
        let other = ProgressRecord::new(Position::new(8)).with_offset("t", 1, 9);
        progress.read(1, Some(b"lending.publisher.a"), Some(&other.to_json())).unwrap();
        read(&mut progress, 2, 6, 4);
        let known = progress.heard().unwrap();
        assert_eq!(known.position, Position::new(8), "it does not go back");
        assert_eq!(known.offsets["t"], BTreeMap::from([(0, 5), (1, 9)]));
        // One that was paused says what was said before.
        read(&mut progress, 3, 7, 4);
        let known = progress.heard().unwrap();
        assert_eq!((known.position, known.offsets.len()), (Position::new(8), 0));
        assert_eq!(progress.heard(), None);
    }

    #[test]
    fn several_stores_are_refused_until_all_but_one_are_gone() {
        let mut progress = progress();
        read(&mut progress, 0, 7, 5);
        let record = ProgressRecord::new(Position::new(3)).to_json();
        let other = progress.read(1, Some(b"lending.publisher.b"), Some(&record)).unwrap_err();
        assert!(other.to_string().contains("lending.publisher.b"), "{other}");
        progress.read(2, Some(b"lending.publisher.b"), None).unwrap();
        read(&mut progress, 3, 8, 6);
        let unknown = progress.read(4, Some(b"lending.publisher.a"), Some(b"{\"format\":9}"));
        assert!(matches!(unknown, Err(FeedError::Progress { offset: 4, .. })), "{unknown:?}");
    }
}
