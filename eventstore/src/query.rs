//! Which events to read, and in which direction.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::ids::{Position, StreamId, Version};

/// How many events are fetched at a time, unless set.
const PAGE: usize = 2000;

/// Which way to read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Direction {
    #[default]
    Forward,
    Backward,
}

/// Whether events of archived streams count.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Archived {
    /// They are left out.
    #[default]
    Excluded,
    /// They count like all others.
    Included,
}

/// Which events to read: of the log or of one stream, narrowed down, forward or backward.
///
/// An event must match all that is set; of a list of names, one. What is set twice is narrowed down: two
/// lists match what is in both. A query can be serialized, so that reading can go on in another process: see
/// [`Cursor::rest`](crate::Cursor::rest).
///
/// ```
/// use annals_eventstore::{EventQuery, EventStore};
/// use futures::TryStreamExt;
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), annals_eventstore::Error> {
/// # let store = EventStore::in_memory();
/// let latest = EventQuery::log().category("loan").event_types(["Declined"]).backward().limit(10);
/// let declined: Vec<_> = store.read(latest).try_collect().await?;
/// # assert!(declined.is_empty());
/// # Ok(()) }
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[must_use = "a query does nothing until it is read"]
pub struct EventQuery {
    #[serde(with = "stream_name", skip_serializing_if = "Option::is_none")]
    pub(crate) stream: Option<StreamId>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) categories: Option<Vec<String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) event_types: Option<Vec<String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) correlation_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) event_id: Option<Uuid>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) from_time: Option<DateTime<Utc>>,
    pub(crate) after: Position,
    pub(crate) up_to: Position,
    pub(crate) after_version: Version,
    pub(crate) up_to_version: Version,
    pub(crate) limit: u64,
    pub(crate) page_size: usize,
    pub(crate) direction: Direction,
    pub(crate) archived: Archived,
}

impl Default for EventQuery {
    fn default() -> Self {
        Self {
            stream: None,
            categories: None,
            event_types: None,
            correlation_id: None,
            event_id: None,
            from_time: None,
            after: Position::START,
            up_to: Position::new(i64::MAX),
            after_version: Version::NONE,
            up_to_version: Version::new(i64::MAX),
            limit: u64::MAX,
            page_size: PAGE,
            direction: Direction::Forward,
            archived: Archived::Excluded,
        }
    }
}

impl EventQuery {
    /// The whole log, by position. Events of deleted streams are among it: they have happened.
    /// Those of archived streams are not, unless [included](Self::include_archived).
    pub fn log() -> Self {
        Self::default()
    }

    /// One stream, by version. A deleted stream has no events. An archived one is an error, unless
    /// [included](Self::include_archived).
    pub fn stream(stream: &StreamId) -> Self {
        Self { stream: Some(stream.clone()), ..Self::default() }
    }

    /// From the newest event to the oldest.
    pub fn backward(mut self) -> Self {
        self.direction = Direction::Backward;
        self
    }

    /// Only events of this category.
    pub fn category(self, category: impl Into<String>) -> Self {
        self.categories([category])
    }

    /// Only events of these categories.
    pub fn categories(mut self, categories: impl IntoIterator<Item = impl Into<String>>) -> Self {
        narrow(&mut self.categories, categories);
        self
    }

    /// Only events of these types, under the names with which they are stored.
    pub fn event_types(mut self, types: impl IntoIterator<Item = impl Into<String>>) -> Self {
        narrow(&mut self.event_types, types);
        self
    }

    /// Only events with this [correlation id](crate::Metadata::correlation_id), the last one that is
    /// set. They are found by an index, wherever they are in the log.
    pub fn correlation_id(mut self, id: impl Into<String>) -> Self {
        self.correlation_id = Some(id.into());
        self
    }

    /// Only the event with this id, the last one that is set. No index has it: it is looked for along the
    /// log, in steps, so set bounds if you know any.
    pub fn event_id(mut self, id: Uuid) -> Self {
        self.event_id = Some(id);
        self
    }

    /// Only events after this position.
    pub fn after(mut self, position: Position) -> Self {
        self.after = self.after.max(position);
        self
    }

    /// Only events at or before this position. Reading backward starts there.
    pub fn up_to(mut self, position: Position) -> Self {
        self.up_to = self.up_to.min(position);
        self
    }

    /// Only events after this version of their stream.
    pub fn after_version(mut self, version: Version) -> Self {
        self.after_version = self.after_version.max(version);
        self
    }

    /// Only events up to this version of their stream.
    pub fn up_to_version(mut self, version: Version) -> Self {
        self.up_to_version = self.up_to_version.min(version);
        self
    }

    /// Only events recorded at or after this time: those after the position as of the moment before
    /// it. A time that has not come yet is an error.
    pub fn from_time(mut self, time: DateTime<Utc>) -> Self {
        self.from_time = self.from_time.max(Some(time));
        self
    }

    /// At most this many events.
    pub fn limit(mut self, events: u64) -> Self {
        self.limit = self.limit.min(events);
        self
    }

    /// How many events are fetched, and held in memory, at a time: 2,000 unless set.
    pub fn page_size(mut self, events: usize) -> Self {
        self.page_size = events.max(1);
        self
    }

    /// Also events of archived streams, in their places.
    pub fn include_archived(mut self) -> Self {
        self.archived = Archived::Included;
        self
    }
}

fn narrow(names: &mut Option<Vec<String>>, given: impl IntoIterator<Item = impl Into<String>>) {
    let mut given: Vec<String> = given.into_iter().map(Into::into).collect();
    if let Some(before) = names {
        given.retain(|name| before.contains(name));
    }
    *names = Some(given);
}

/// A stream as its category and its key.
mod stream_name {
    use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error};

    use crate::ids::StreamId;

    pub(super) fn serialize<S: Serializer>(
        stream: &Option<StreamId>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        stream.as_ref().map(|stream| (stream.category(), stream.key())).serialize(serializer)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Option<StreamId>, D::Error> {
        let name = Option::<(String, String)>::deserialize(deserializer)?;
        let stream = name.map(|(category, key)| StreamId::new(category, key));
        stream.transpose().map_err(D::Error::custom)
    }
}
