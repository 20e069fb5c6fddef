//! What is told of each append: a span in the trace of whoever appends, and metrics.

use std::time::Instant;

use tracing::{Instrument, Span, field::Empty};

use crate::{
    backend::{Outcome, Request},
    error::Error,
    metrics,
};

/// An append that is about to be made.
pub(super) struct Observed {
    span: Span,
    events: usize,
}

impl Observed {
    pub(super) fn new(request: &Request) -> Self {
        let events = request.events.len();
        let span = match request.events.first() {
            None => Span::none(),
            Some((stream, event)) => tracing::info_span!(
                "append",
                stream = %request.streams[*stream].0,
                streams = request.streams.len(),
                events,
                event_id = %event.id,
                correlation_id = event.metadata.correlation_id,
                position = Empty,
            ),
        };
        Self { span, events }
    }

    /// Makes it. Something that records nothing is no append, and nothing is told of it.
    pub(super) async fn through(
        self,
        append: impl Future<Output = Result<Outcome, Error>>,
    ) -> Result<Outcome, Error> {
        let Self { span, events } = self;
        if events == 0 {
            return append.await;
        }
        let began = Instant::now();
        let outcome = append.instrument(span.clone()).await;
        metrics::appended(&outcome, events, began.elapsed());
        if let Ok(Outcome::Recorded { first, .. }) = &outcome {
            span.record("position", first.get());
        }
        outcome
    }
}
