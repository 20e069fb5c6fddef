//! Making one call: from a claim to what came of it.

use std::{
    panic::AssertUnwindSafe,
    sync::Arc,
    time::{Duration, Instant},
};

use annals_eventstore::{Aggregate, Metadata, StreamId, trace};
use futures::FutureExt;
use tracing::{Instrument, Span, field::Empty, info_span};

use super::{
    Answer, Attempt, Direction, Instance, Perform, Process,
    instance::Pending,
    ledger::{Ledger, News},
    machine::{Outcome, Sent},
    step::{Retry, Step},
};
use crate::{
    breaking::{Passed, through},
    fail_points::may_fail,
    guard::{Cause, panicked},
    metrics::{self, Attempted},
    worker::failure::text,
};

/// How long to wait where the saga could not be read.
const AGAIN: Duration = Duration::from_secs(1);

pub(super) struct Making<S: Process, P> {
    pub(super) ledger: Arc<Ledger<S>>,
    pub(super) performer: Arc<P>,
}

impl<S: Process, P: Perform<S>> Making<S, P> {
    /// Makes the pending call of a saga, for the how manieth time.
    pub(super) async fn make(&self, key: &str, attempt: u32) -> News<S> {
        let loaded = match self.ledger.store.load::<Instance<S>>(key).await {
            Ok(Some(loaded)) => loaded,
            Ok(None) => return News::Damaged("its stream is deleted".to_owned()),
            Err(error) if error.is_retryable() => {
                return News::PutOff { attempt, wait: AGAIN, sent: Sent::No };
            }
            Err(error) => return News::Damaged(text(&error)),
        };
        let instance = loaded.state;
        // It may have been answered since; then its row says so by now.
        let Some(pending) = instance.pending.as_ref().filter(|pending| pending.due.is_some())
        else {
            return News::Look;
        };
        let step = S::steps().into_iter().find(|step| step.name == pending.step);
        let retry = retry(step.as_ref(), pending.direction);
        let failed = |cause: Cause| Outcome::Failed {
            attempt,
            reason: text(&*cause),
            wait: retry.wait(attempt),
        };
        let outcome = if attempt > retry.attempts {
            failed("the workers that made earlier attempts ended before these did".into())
        } else {
            let (span, began) = (span(key, attempt, &instance, pending), Instant::now());
            let performing = self.perform(key, attempt, &instance, pending, step.as_ref());
            let passed = performing.instrument(span.clone()).await;
            tell(&span, step.as_ref(), pending.direction, &passed, began.elapsed());
            match passed {
                Ok(Passed::Made(Answer::Done(reply))) => Outcome::Done(reply),
                Ok(Passed::Made(Answer::Refused(reason))) => Outcome::Refused(reason),
                Ok(Passed::Made(Answer::RetryAfter(wait)) | Passed::Refused(wait)) => {
                    return News::PutOff { attempt, wait, sent: Sent::No };
                }
                Ok(Passed::TrialFailed(wait, _)) => {
                    return News::PutOff { attempt, wait, sent: Sent::Maybe };
                }
                Err(cause) => failed(cause),
            }
        };
        News::Outcome { id: pending.id, attempt, outcome }
    }

    async fn perform(
        &self,
        key: &str,
        attempt: u32,
        instance: &Instance<S>,
        pending: &Pending,
        step: Option<&Step<S>>,
    ) -> Result<Passed<Answer<S::Reply>>, Cause> {
        let call: S::Call = serde_json::from_value(pending.call.clone())?;
        let undoes = match pending.direction {
            Direction::Do => None,
            Direction::Undo => instance.done.last().map(|done| done.id),
        };
        let attempt = Attempt {
            id: pending.id,
            attempt,
            saga: StreamId::new(Instance::<S>::CATEGORY, key)?,
            step: pending.step.clone(),
            direction: pending.direction,
            undoes,
            correlation_id: instance.correlation_id.clone(),
            // What is called is a part of this attempt.
            traceparent: trace::current().or_else(|| instance.traceparent.clone()),
        };
        let limit = step.map_or(Duration::from_secs(10), |step| step.time_limit);
        let performing = async {
            let performing = AssertUnwindSafe(self.call(&call, &attempt));
            match tokio::time::timeout(limit, performing.catch_unwind()).await {
                Ok(Ok(answer)) => answer,
                Ok(Err(payload)) => Err(panicked(&*payload)),
                Err(_) => Err(format!("no answer within {limit:?}").into()),
            }
        };
        match self.performer.circuit(&call) {
            Some(circuit) => through(circuit, performing).await,
            None => performing.await.map(Passed::Made),
        }
    }

    async fn call(&self, call: &S::Call, attempt: &Attempt) -> Result<Answer<S::Reply>, Cause> {
        may_fail!("saga-calling");
        let answer = self.performer.perform(call, attempt).await?;
        may_fail!("saga-called");
        Ok(answer)
    }
}

/// The span of an attempt, in the trace of what began the saga.
fn span<S: Process>(key: &str, attempt: u32, instance: &Instance<S>, pending: &Pending) -> Span {
    let (saga, step, call_id) = (S::CATEGORY, &pending.step, pending.id);
    let correlation_id = instance.correlation_id.as_deref();
    let span = match pending.direction {
        Direction::Do => info_span!(
            "saga step",
            saga, key, step, attempt, %call_id, correlation_id,
            outcome = Empty, otel.status_code = Empty,
        ),
        Direction::Undo => info_span!(
            "saga compensation",
            saga, key, step, attempt, %call_id, correlation_id,
            outcome = Empty, otel.status_code = Empty,
        ),
    };
    let mut metadata = Metadata::new();
    metadata.traceparent.clone_from(&instance.traceparent);
    trace::continue_from(&span, &metadata);
    span
}

/// Tells what came of an attempt.
fn tell<S: Process>(
    span: &Span,
    step: Option<&Step<S>>,
    direction: Direction,
    passed: &Result<Passed<Answer<S::Reply>>, Cause>,
    took: Duration,
) {
    let outcome = match passed {
        Ok(Passed::Made(Answer::Done(_))) => Attempted::Done,
        Ok(Passed::Made(Answer::Refused(_))) => Attempted::Refused,
        Ok(Passed::Made(Answer::RetryAfter(_)) | Passed::Refused(_)) => Attempted::PutOff,
        Ok(Passed::TrialFailed(..)) | Err(_) => Attempted::Failed,
    };
    span.record("outcome", outcome.as_str());
    span.in_scope(|| match passed {
        Ok(Passed::Made(Answer::Refused(reason))) => {
            tracing::info!(reason, "a step of a saga was refused")
        }
        Ok(Passed::TrialFailed(_, cause)) | Err(cause) => {
            span.record("otel.status_code", "ERROR");
            tracing::warn!(error = text(&**cause), "an attempt at a step of a saga failed");
        }
        Ok(_) => {}
    });
    let step = step.map(|step| step.name);
    metrics::attempted(S::CATEGORY, step, direction, outcome, took);
}

fn retry<S: Process>(step: Option<&Step<S>>, direction: Direction) -> Retry {
    match (step, direction) {
        (Some(step), Direction::Do) => step.retry,
        (Some(step), Direction::Undo) => step.retry_undo,
        // It is stuck after this attempt.
        (None, _) => Retry::attempts(1),
    }
}
