//! Traces that go on behind the log.
//!
//! An event bears the W3C trace context of the request that led to it ([`Metadata::traceparent`]),
//! and the publisher passes it on to Kafka. With the feature `otel`, a span that is open while
//! something is appended becomes that context by itself, if a layer of `tracing-opentelemetry` is there,
//! and what publishers and workers do with an event becomes a part of its trace: one trace leads
//! from the request to the rows of the read model. Events of traces that are not sampled get no spans.
//!
//! [`Metadata::traceparent`]: crate::Metadata::traceparent
//!
//! ```
//! use annals_eventstore::{Recorded, trace};
//! use tracing::Instrument;
//!
//! async fn send_mail(event: &Recorded) {
//!     let span = tracing::info_span!("send mail", position = event.position.get());
//!     trace::continue_from(&span, &event.metadata);
//!     async { /* what is done here is in the trace of the request */ }.instrument(span).await;
//! }
//! ```

use tracing::Span;

use crate::event::{Metadata, Recorded};

/// The trace context of the current span, as [`Metadata::traceparent`] takes it. `None` without the feature
/// `otel`, and where no trace is recorded.
pub fn current() -> Option<String> {
    implementation::of(&Span::current())
}

/// Makes a span a part of the trace that events bear. It does nothing without the feature `otel`, or if they
/// bear none.
pub fn continue_from(span: &Span, metadata: &Metadata) {
    if let Some(parent) = &metadata.traceparent {
        implementation::set_parent(span, parent);
    }
}

/// A span for each event that bears a trace that is sampled, to be kept as long as something is done with it.
pub fn continued<'a>(
    events: impl IntoIterator<Item = &'a Recorded>,
    span: impl Fn(&'a Recorded) -> Span,
) -> Vec<Span> {
    if !cfg!(feature = "otel") {
        return Vec::new();
    }
    let is_sampled = |event: &&Recorded| {
        event.metadata.traceparent.as_deref().is_some_and(implementation::is_sampled)
    };
    let continued = events.into_iter().filter(is_sampled).map(|event| {
        let span = span(event);
        continue_from(&span, &event.metadata);
        span
    });
    continued.collect()
}

#[cfg(feature = "otel")]
mod implementation {
    use opentelemetry::{
        Context,
        trace::{SpanContext, SpanId, TraceContextExt, TraceFlags, TraceId, TraceState},
    };
    use tracing::Span;
    use tracing_opentelemetry::OpenTelemetrySpanExt;

    pub(super) fn of(span: &Span) -> Option<String> {
        let context = span.context();
        let span = context.span();
        let context = span.span_context();
        let (trace, id) = (context.trace_id(), context.span_id());
        context.is_valid().then(|| format!("00-{trace}-{id}-{:02x}", context.trace_flags().to_u8()))
    }

    pub(super) fn set_parent(span: &Span, parent: &str) {
        if let Some(parent) = parse(parent) {
            // Fails where no layer takes it, or the span has begun already: then there is no trace.
            let _ = span.set_parent(Context::new().with_remote_span_context(parent));
        }
    }

    pub(super) fn is_sampled(parent: &str) -> bool {
        parse(parent).is_some_and(|context| context.is_sampled())
    }

    /// `00-{trace}-{span}-{flags}`, of any version that has at least these.
    fn parse(parent: &str) -> Option<SpanContext> {
        let mut parts = parent.split('-');
        let (_version, trace, span, flags) =
            (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
        let context = SpanContext::new(
            TraceId::from_hex(trace).ok()?,
            SpanId::from_hex(span).ok()?,
            TraceFlags::new(u8::from_str_radix(flags, 16).ok()?),
            true,
            TraceState::default(),
        );
        context.is_valid().then_some(context)
    }
}

#[cfg(not(feature = "otel"))]
mod implementation {
    use tracing::Span;

    pub(super) fn of(_: &Span) -> Option<String> {
        None
    }

    pub(super) fn set_parent(_: &Span, _: &str) {}

    pub(super) fn is_sampled(_: &str) -> bool {
        false
    }
}
