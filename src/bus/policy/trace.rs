//! A span and the metrics of each command.

use std::time::Instant;

use annals_eventstore::{Aggregate, Command, Handle};
use tower::ServiceExt;
use tracing::Instrument;

use crate::bus::{BusError, Dispatch, Policy, Refusal, Request, Response, metrics::DURATION};

/// Gives each command a span, `command`, and measures it: the histogram `annals_command_duration_seconds`,
/// with the labels `command` and `outcome` (done, replayed, rejected, conflict, failed, or the refusal's name).
///
/// The outermost layer, so that what other policies refuse is seen too.
#[derive(Clone, Copy, Debug, Default)]
#[non_exhaustive]
pub struct Trace;

impl Policy for Trace {
    async fn around<C, S>(&self, request: Request<C>, inner: S) -> Response<C>
    where
        C: Command,
        C::Aggregate: Handle<C>,
        S: Dispatch<C>,
    {
        let category = <C::Aggregate as Aggregate>::CATEGORY;
        let span = tracing::info_span!(
            "command",
            command = C::NAME,
            stream = %format_args!("{category}-{}", request.envelope.command.stream_key()),
            client = request.origin.client,
            tenant = request.origin.tenant,
            key = request.envelope.idempotency_key,
            correlation_id = request.envelope.metadata.correlation_id,
            outcome = tracing::field::Empty,
            position = tracing::field::Empty,
        );
        let began = Instant::now();
        let response = inner.oneshot(request).instrument(span.clone()).await;
        let outcome = outcome(&response);
        span.record("outcome", outcome);
        if let Ok(committed) = &response {
            span.record("position", committed.position.get());
        }
        metrics::histogram!(DURATION.name, "command" => C::NAME, "outcome" => outcome)
            .record(began.elapsed());
        response
    }
}

fn outcome<E>(response: &Result<annals_eventstore::Committed, BusError<E>>) -> &'static str {
    use annals_eventstore::Error;

    match response {
        Ok(committed) if committed.replayed => "replayed",
        Ok(_) => "done",
        Err(BusError::Rejected(_)) => "rejected",
        Err(BusError::Failed(Error::Conflict { .. })) => "conflict",
        Err(BusError::Failed(_)) => "failed",
        Err(BusError::Refused(refusal)) => match refusal {
            Refusal::Overloaded { .. } => "overloaded",
            Refusal::RateLimited { .. } => "rate_limited",
            Refusal::NoKey { .. } => "no_key",
            Refusal::Full { .. } => "full",
            Refusal::TimedOut { .. } => "timed_out",
            Refusal::CircuitOpen { .. } => "circuit_open",
        },
    }
}
