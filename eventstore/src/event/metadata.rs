//! What is recorded about an event besides its payload.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::Recorded;

/// Correlation, causation, actor, trace context and the caller's own keys.
///
/// ```
/// # use annals_eventstore::Metadata;
/// let metadata = Metadata::new().actor("clerk-112").correlation_id("order-7").with("channel", "web");
/// assert_eq!(metadata.custom["channel"], "web");
/// ```
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Metadata {
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
        Self {
            correlation_id: Some(
                cause.metadata.correlation_id.clone().unwrap_or_else(|| id.clone()),
            ),
            causation_id: Some(id),
            traceparent: cause.metadata.traceparent.clone(),
            ..Self::default()
        }
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
        self.correlation_id.is_none()
            && self.causation_id.is_none()
            && self.actor.is_none()
            && self.traceparent.is_none()
            && self.custom.is_empty()
    }
}
