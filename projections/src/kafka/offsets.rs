//! Places in topics: which partitions, up to where, and where to go on.

use std::collections::{BTreeMap, BTreeSet};

use annals_eventstore::Position;
use serde::{Deserialize, Serialize};

/// How far partitions have been read: of each, by topic and number, the offset of the next record.
///
/// Serialised, it is `{"lending.loan.events.v1":{"0":17,"1":4}}`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Offsets(BTreeMap<String, BTreeMap<i32, i64>>);

impl Offsets {
    /// None.
    pub fn new() -> Self {
        Self::default()
    }

    /// The next offset of a partition, if it is known.
    pub fn get(&self, topic: &str, partition: i32) -> Option<i64> {
        self.0.get(topic)?.get(&partition).copied()
    }

    /// Sets the next offset of a partition.
    pub fn set(&mut self, topic: &str, partition: i32, next: i64) {
        if let Some(partitions) = self.0.get_mut(topic) {
            partitions.insert(partition, next);
        } else {
            self.0.insert(topic.to_owned(), BTreeMap::from([(partition, next)]));
        }
    }

    /// All of them: topic, partition, next offset; in order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, i32, i64)> {
        self.0.iter().flat_map(|(topic, partitions)| {
            partitions.iter().map(move |(partition, next)| (topic.as_str(), *partition, *next))
        })
    }

    /// True if there is none.
    pub fn is_empty(&self) -> bool {
        self.0.values().all(BTreeMap::is_empty)
    }
}

impl<T: Into<String>> FromIterator<(T, i32, i64)> for Offsets {
    fn from_iter<I: IntoIterator<Item = (T, i32, i64)>>(offsets: I) -> Self {
        let mut all = Self::new();
        for (topic, partition, next) in offsets {
            all.set(&topic.into(), partition, next);
        }
        all
    }
}

/// Where to go on: every event up to `position` has been dealt with, and what comes after it is at or
/// behind the offsets.
///
/// Keep it in one transaction with what was made of the events, and nothing is lost or done twice.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Resume {
    /// The last position that has been dealt with.
    pub position: Position,
    /// Where the partitions go on. One that is not named is read from its first record on.
    pub offsets: Offsets,
}

impl Resume {
    /// Behind a position, from these offsets on.
    pub fn new(position: Position, offsets: Offsets) -> Self {
        Self { position, offsets }
    }
}

/// Where a subscription begins.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Start {
    /// With the first record that the topics still hold. What they held before is not missed: who needs
    /// every event begins [`At`](Self::At) the default of [`Resume`], which fails if one is gone.
    #[default]
    Earliest,
    /// With what is published from now on.
    Latest,
    /// Where another one ended.
    At(Resume),
}

/// Which partitions of its topics a subscription reads. The topics of a context have equally many, and
/// one key is in the same partition of each.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Partitions {
    /// All of them.
    #[default]
    All,
    /// Those with these numbers.
    These(BTreeSet<i32>),
    /// Those whose number leaves the remainder `slice` when divided by `slices`. Where the number of
    /// partitions is a multiple of `slices`, they hold the streams of that slice.
    Slice {
        /// The slice, from 0.
        slice: u16,
        /// How many there are.
        slices: u16,
    },
}

impl Partitions {
    /// Whether a partition is one of them.
    pub fn contains(&self, partition: i32) -> bool {
        match self {
            Self::All => true,
            Self::These(numbers) => numbers.contains(&partition),
            Self::Slice { slice, slices } => {
                partition.rem_euclid(i32::from((*slices).max(1))) == i32::from(*slice)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn offsets_are_serialised_by_topic_and_partition() {
        let offsets: Offsets = [("a.b", 0, 17), ("a.b", 1, 4), ("c", 3, 0)].into_iter().collect();
        let resume = Resume::new(Position::new(9), offsets);
        let text = serde_json::to_string(&resume).unwrap();
        assert_eq!(text, r#"{"position":9,"offsets":{"a.b":{"0":17,"1":4},"c":{"3":0}}}"#);
        assert_eq!(serde_json::from_str::<Resume>(&text).unwrap(), resume);
        assert_eq!(resume.offsets.get("a.b", 1), Some(4));
        assert_eq!(resume.offsets.get("a.b", 2), None);
        assert_eq!(resume.offsets.iter().last(), Some(("c", 3, 0)));
    }

    #[test]
    fn slices_share_the_partitions_out() {
        for partition in 0..12 {
            let slices =
                (0..3).filter(|&slice| Partitions::Slice { slice, slices: 3 }.contains(partition));
            assert_eq!(slices.collect::<Vec<_>>(), [u16::try_from(partition % 3).unwrap()]);
        }
        assert!(Partitions::These([2, 5].into()).contains(5));
        assert!(!Partitions::These([2, 5].into()).contains(4));
    }
}
