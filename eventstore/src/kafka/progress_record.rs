//! What the publisher leaves in Kafka of how far a store is published.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::ids::Position;

/// How far a store is in the topics, as the publisher tells it in Kafka.
///
/// The topic `{context}.publisher.progress` ([`topic`](Self::topic)) has one partition and is compacted.
/// The key of a record is the publisher's transactional id, `{context}.publisher.{store}`; its value is
/// this, in JSON:
///
/// ```json
/// {"format":1,"position":1234,"event":{"position":1230,"id":"01901234-5678-7abc-8def-0123456789ab"},
///  "offsets":{"lending.loan.events.v1":{"0":17,"3":20}}}
/// ```
///
/// **Every event up to `position` is in the topics**, below the offsets that this record or an earlier one
/// of the same key names for its partition. So one who reads all partitions up to the last offset named for
/// each, in this record or before, has seen them all. Published exactly once, the record is part of the
/// transaction that it tells of: read with `isolation.level=read_committed`. Published at least once, it
/// follows the acknowledgements of what it tells of.
///
/// Take the highest position that was seen for a key. It goes back only where a publisher that publishes
/// at least once was paused while another took over.
///
/// ```
/// use annals_eventstore::{Position, kafka::ProgressRecord};
///
/// let value = br#"{"format":1,"position":7,"offsets":{"lending.loan.events.v1":{"2":5}}}"#;
/// let record = ProgressRecord::parse(value)?;
/// assert_eq!(record.position, Position::new(7));
/// assert_eq!(record.offsets["lending.loan.events.v1"][&2], 5);
/// # Ok::<(), annals_eventstore::kafka::ProgressRecordError>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ProgressRecord {
    /// Every event up to here is in the topics.
    pub position: Position,
    /// By topic and partition, the offset behind the last event that this step of the publisher has put
    /// there. What it did not touch is not named.
    pub offsets: BTreeMap<String, BTreeMap<i32, i64>>,
    /// The last event at or before the position that this publisher has read from the log. It tells a log
    /// from another one that is at the same position.
    pub event: Option<LastEvent>,
}

/// An event of the log, by which the log is known again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct LastEvent {
    /// Its position.
    pub position: Position,
    /// Its id.
    pub id: Uuid,
}

impl LastEvent {
    /// Names an event.
    pub fn new(position: Position, id: Uuid) -> Self {
        Self { position, id }
    }
}

/// Why a record of the progress topic cannot be understood.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ProgressRecordError {
    /// It is not the JSON that publishers write.
    #[error("it is no progress of a publisher")]
    Malformed(#[source] serde_json::Error),
    /// A newer publisher wrote it.
    #[error("it has format {found}, and this program knows format {FORMAT}; run a newer version")]
    NewerFormat {
        /// Its format.
        found: u64,
    },
    /// An offset is below zero.
    #[error("it names an offset below zero")]
    Negative,
}

const FORMAT: u64 = 1;

#[derive(Serialize, Deserialize)]
struct Version {
    format: u64,
}

#[derive(Serialize, Deserialize)]
struct Content<'a> {
    position: Position,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    event: Option<LastEvent>,
    #[serde(default)]
    offsets: std::borrow::Cow<'a, BTreeMap<String, BTreeMap<i32, i64>>>,
}

#[derive(Serialize)]
struct Written<'a> {
    #[serde(flatten)]
    version: Version,
    #[serde(flatten)]
    content: Content<'a>,
}

impl ProgressRecord {
    /// Every event up to a position is in the topics, and no partition is touched.
    pub fn new(position: Position) -> Self {
        Self { position, ..Self::default() }
    }

    /// The topic of a context's progress.
    pub fn topic(context: &str) -> String {
        format!("{context}.publisher.progress")
    }

    /// Notes the offset behind the last event in a partition.
    #[must_use]
    pub fn with_offset(mut self, topic: impl Into<String>, partition: i32, offset: i64) -> Self {
        self.offsets.entry(topic.into()).or_default().insert(partition, offset);
        self
    }

    /// The offsets, partition by partition.
    pub(super) fn ends(&self) -> impl Iterator<Item = ((String, i32), i64)> {
        self.offsets.iter().flat_map(|(topic, ends)| {
            ends.iter().map(|(partition, end)| ((topic.clone(), *partition), *end))
        })
    }

    /// Reads the value of a record. Fields that it does not know are left out.
    ///
    /// # Errors
    /// If it is nothing that a publisher wrote, or one of a newer version wrote it.
    pub fn parse(value: &[u8]) -> Result<Self, ProgressRecordError> {
        let Version { format } =
            serde_json::from_slice(value).map_err(ProgressRecordError::Malformed)?;
        if format != FORMAT {
            return Err(ProgressRecordError::NewerFormat { found: format });
        }
        let Content { position, event, offsets } =
            serde_json::from_slice(value).map_err(ProgressRecordError::Malformed)?;
        let negative = |offset: &i64| *offset < 0;
        if offsets.values().flat_map(BTreeMap::values).any(negative) {
            return Err(ProgressRecordError::Negative);
        }
        Ok(Self { position, event, offsets: offsets.into_owned() })
    }

    /// The value of its record.
    pub fn to_json(&self) -> Vec<u8> {
        let written = Written {
            version: Version { format: FORMAT },
            content: Content {
                position: self.position,
                event: self.event,
                offsets: std::borrow::Cow::Borrowed(&self.offsets),
            },
        };
        // Numbers and strings with string keys are JSON.
        serde_json::to_vec(&written).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_format_is_what_is_promised() {
        let mut record = ProgressRecord::new(Position::new(1234))
            .with_offset("lending.loan.events.v1", 3, 20)
            .with_offset("lending.loan.events.v1", 0, 17);
        let offsets = r#""offsets":{"lending.loan.events.v1":{"0":17,"3":20}}}"#;
        let json = |record: &ProgressRecord| String::from_utf8(record.to_json()).unwrap();
        assert_eq!(json(&record), format!(r#"{{"format":1,"position":1234,{offsets}"#));
        let id = Uuid::from_u128(0x0190_1234_5678_7abc_8def_0123_4567_89ab);
        record.event = Some(LastEvent::new(Position::new(1230), id));
        let event = r#""event":{"position":1230,"id":"01901234-5678-7abc-8def-0123456789ab"},"#;
        assert_eq!(json(&record), format!(r#"{{"format":1,"position":1234,{event}{offsets}"#));
    }

    #[test]
    fn what_is_no_progress_is_refused() {
        for value in ["", "[]", "{}", r#"{"format":1}"#, r#"{"format":1,"position":"7"}"#] {
            let refused = ProgressRecord::parse(value.as_bytes());
            assert!(matches!(refused, Err(ProgressRecordError::Malformed(_))), "{value}");
        }
        let newer = ProgressRecord::parse(br#"{"format":2,"position":{}}"#);
        assert!(matches!(newer, Err(ProgressRecordError::NewerFormat { found: 2 })));
        let refused =
            ProgressRecord::parse(br#"{"format":1,"position":1,"offsets":{"t":{"0":-2}}}"#);
        assert!(matches!(refused, Err(ProgressRecordError::Negative)));
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(
            position in 0..i64::MAX,
            event in proptest::option::of((0..i64::MAX, any::<u128>())),
            offsets in prop::collection::btree_map(
                "[a-z.]{1,20}", prop::collection::btree_map(0..1000i32, 0..i64::MAX, 1..5), 0..5),
        ) {
            let event = event.map(|(at, id)| LastEvent::new(Position::new(at), Uuid::from_u128(id)));
            let record = ProgressRecord { position: Position::new(position), event, offsets };
            prop_assert_eq!(ProgressRecord::parse(&record.to_json()).unwrap(), record);
        }
    }
}
