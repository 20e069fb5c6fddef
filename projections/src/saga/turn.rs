//! What is told of sagas once it is recorded: in the trace of what began them, in the log, and in metrics.

use std::time::Duration;

use annals_eventstore::{Metadata, trace};
use tracing::{info, warn};

use super::{Instance, Process, SagaStatus};
use crate::metrics;

/// What has become of a saga in a transaction.
pub(super) struct Turn {
    saga: &'static str,
    key: String,
    /// Where it has come to, if that is another status than before.
    status: Option<SagaStatus>,
    reason: Option<String>,
    correlation_id: Option<String>,
    traceparent: Option<String>,
    /// How late timers went off.
    late: Vec<Duration>,
}

impl Turn {
    /// None if there is nothing to be told.
    pub(super) fn of<S: Process>(
        key: &str,
        before: Option<SagaStatus>,
        instance: &Instance<S>,
        late: Vec<Duration>,
    ) -> Option<Self> {
        // One that no event has begun is none yet.
        let status = (instance.begun && before != Some(instance.status)).then_some(instance.status);
        (status.is_some() || !late.is_empty()).then(|| Self {
            saga: S::CATEGORY,
            key: key.to_owned(),
            status,
            reason: instance.reason.clone(),
            correlation_id: instance.correlation_id.clone(),
            traceparent: instance.traceparent.clone(),
            late,
        })
    }

    pub(super) fn tell(&self) {
        let Self { saga, key, status, reason, correlation_id, traceparent, late } = self;
        late.iter().for_each(|late| metrics::went_off(saga, *late));
        let Some(status) = *status else { return };
        metrics::turned(saga, status);
        let (is, reason) = (status.as_str(), reason.as_deref());
        let span = tracing::info_span!("saga turn", saga, key, status = is, correlation_id);
        let mut metadata = Metadata::new();
        metadata.traceparent.clone_from(traceparent);
        trace::continue_from(&span, &metadata);
        span.in_scope(|| match status {
            SagaStatus::Stuck => warn!(reason, "a saga is stuck"),
            SagaStatus::Running => tracing::debug!("a saga runs"),
            _ => info!(reason, "a saga is {is}"),
        });
    }
}
