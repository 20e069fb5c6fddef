//! What is told of a batch in traces.

use std::collections::BTreeSet;

use annals_eventstore::{Position, Recorded};
use tracing::{Span, field};

/// So many traces are named at most.
const MOST: usize = 16;

/// A span for applying events, with the traces (W3C `traceparent`) of what led to them: so one leads from a command to the
/// read model. None where there are no events.
pub(super) fn span(projection: &str, slice: u16, events: &[Recorded], to: Position) -> Span {
    if events.is_empty() {
        return Span::none();
    }
    let span = tracing::info_span!(
        "apply events",
        projection,
        slice,
        events = events.len(),
        to = to.get(),
        traceparents = field::Empty,
    );
    if !span.is_disabled() {
        let of_events = events.iter().filter_map(|event| event.metadata.traceparent.as_deref());
        let traces: BTreeSet<_> = of_events.take(10 * MOST).collect();
        if !traces.is_empty() {
            let named: Vec<_> = traces.into_iter().take(MOST).collect();
            span.record("traceparents", named.join(" "));
        }
    }
    span
}
