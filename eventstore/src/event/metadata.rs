//! What is recorded about an event besides its payload.

use std::{
    fmt,
    ops::{Deref, DerefMut},
    sync::LazyLock,
};

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::{Map, Value};

use super::Recorded;

/// Correlation, causation, actor, trace context and the caller's own keys.
///
/// ```
/// # use annals_eventstore::Metadata;
/// let metadata = Metadata::new().actor("clerk-112").correlation_id("order-7").with("channel", "web");
/// assert_eq!(metadata.custom["channel"], "web");
/// ```
///
/// Its fields are those of [`MetadataFields`]. Most events have none of them, and replays move millions of events:
/// so it is as small as a pointer.
#[derive(Clone, Default)]
pub struct Metadata(Option<Box<MetadataFields>>);

/// What [`Metadata`] consists of.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct MetadataFields {
    /// What all messages of one business transaction share.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub correlation_id: Option<String>,
    /// The id of the message that led to this one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub causation_id: Option<String>,
    /// Who did it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub actor: Option<String>,
    /// W3C trace context of the request that led to it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub traceparent: Option<String>,
    /// The caller's own keys.
    #[serde(default, skip_serializing_if = "Map::is_empty")]
    pub custom: Map<String, Value>,
}

impl Metadata {
    /// Empty metadata.
    pub fn new() -> Self {
        Self::default()
    }

    /// The metadata of what `cause` leads to: the same correlation (the cause's id where it has
    /// none), caused by the event, in the same trace.
    pub fn caused_by<E>(cause: &Recorded<E>) -> Self {
        let id = cause.id.to_string();
        let MetadataFields { correlation_id, traceparent, .. } = &*cause.metadata;
        let fields = MetadataFields {
            correlation_id: Some(correlation_id.clone().unwrap_or_else(|| id.clone())),
            causation_id: Some(id),
            traceparent: traceparent.clone(),
            ..MetadataFields::default()
        };
        fields.into()
    }

    /// Sets the correlation id.
    #[must_use]
    pub fn correlation_id(mut self, id: impl Into<String>) -> Self {
        self.correlation_id = Some(id.into());
        self
    }

    /// Sets the causation id.
    #[must_use]
    pub fn causation_id(mut self, id: impl Into<String>) -> Self {
        self.causation_id = Some(id.into());
        self
    }

    /// Sets the actor.
    #[must_use]
    pub fn actor(mut self, actor: impl Into<String>) -> Self {
        self.actor = Some(actor.into());
        self
    }

    /// Sets the W3C trace context.
    #[must_use]
    pub fn traceparent(mut self, traceparent: impl Into<String>) -> Self {
        self.traceparent = Some(traceparent.into());
        self
    }

    /// Adds a key of the caller's own.
    #[must_use]
    pub fn with(mut self, key: impl Into<String>, value: impl Into<Value>) -> Self {
        self.custom.insert(key.into(), value.into());
        self
    }

    pub(crate) fn is_empty(&self) -> bool {
        **self == *NONE
    }
}

static NONE: LazyLock<MetadataFields> = LazyLock::new(MetadataFields::default);

impl Deref for Metadata {
    type Target = MetadataFields;

    fn deref(&self) -> &MetadataFields {
        self.0.as_deref().unwrap_or_else(|| &NONE)
    }
}

impl DerefMut for Metadata {
    fn deref_mut(&mut self) -> &mut MetadataFields {
        self.0.get_or_insert_default()
    }
}

impl From<MetadataFields> for Metadata {
    fn from(fields: MetadataFields) -> Self {
        Self((fields != *NONE).then(|| fields.into()))
    }
}

impl From<Metadata> for MetadataFields {
    fn from(metadata: Metadata) -> Self {
        metadata.0.map(|fields| *fields).unwrap_or_default()
    }
}

impl PartialEq for Metadata {
    fn eq(&self, other: &Self) -> bool {
        **self == **other
    }
}

impl fmt::Debug for Metadata {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (**self).fmt(f)
    }
}

impl Serialize for Metadata {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        (**self).serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Metadata {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        MetadataFields::deserialize(deserializer).map(Self::from)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_as_small_as_a_pointer_and_empty_in_whatever_way_it_came_to_be() {
        assert_eq!(size_of::<Metadata>(), size_of::<usize>());
        let mut emptied = Metadata::new().actor("clerk");
        assert!(!emptied.is_empty());
        assert_eq!(MetadataFields::from(emptied.clone()).actor.as_deref(), Some("clerk"));
        emptied.actor = None;
        for empty in [emptied, Metadata::new(), MetadataFields::default().into()] {
            assert!(empty.is_empty());
            assert_eq!(empty, Metadata::default());
            assert_eq!(serde_json::to_string(&empty).unwrap(), "{}");
            assert_eq!(MetadataFields::from(empty), MetadataFields::default());
        }
        let read: Metadata = serde_json::from_str("{}").unwrap();
        assert!(read.0.is_none(), "nothing is allocated for none");
    }
}
