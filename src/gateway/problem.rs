//! Errors as `application/problem+json` (RFC 9457).

use std::time::Duration;

use annals_eventstore::Error as StoreError;
use annals_projections::ProjectionError;
use axum::response::{IntoResponse, Response};
use http::{HeaderValue, StatusCode, header};
use serde_json::{Map, Value, json};

use super::Denied;
use crate::bus::{BusError, Refusal};

/// What went wrong, for the caller.
#[derive(Debug)]
pub(super) struct Problem {
    status: StatusCode,
    /// The last part of its `type`.
    kind: &'static str,
    detail: String,
    retry_after: Option<Duration>,
    more: Map<String, Value>,
}

impl Problem {
    pub(super) fn new(status: StatusCode, kind: &'static str, detail: impl Into<String>) -> Self {
        Self { status, kind, detail: detail.into(), retry_after: None, more: Map::new() }
    }

    pub(super) fn bad_request(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "bad-request", detail)
    }

    pub(super) fn not_found(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, "not-found", detail)
    }

    pub(super) fn with(mut self, key: &str, value: impl Into<Value>) -> Self {
        self.more.insert(key.to_owned(), value.into());
        self
    }

    /// There are as many requests, or other things, as there may be.
    pub(super) fn overloaded(what: &str, limit: usize) -> Self {
        let detail = format!("{limit} {what} are under way, which is the most; try again later");
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "overloaded", detail)
            .retry_after(Duration::from_secs(1))
    }

    fn retry_after(mut self, time: Duration) -> Self {
        self.retry_after = Some(time);
        self
    }

    /// What is not the caller's doing. It is told in full in the log only.
    pub(super) fn internal(error: &(dyn std::error::Error + 'static)) -> Self {
        tracing::error!(error = chain(error), "a request failed");
        let detail = "something failed on this side; the log has it under this request's id";
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", detail)
    }

    fn unavailable(error: &(dyn std::error::Error + 'static)) -> Self {
        tracing::warn!(error = chain(error), "a request could not be served");
        let detail = "the store cannot be used at the moment; try again later, with the same key";
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "unavailable", detail)
            .retry_after(Duration::from_secs(1))
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let mut body = json!({
            "type": format!("urn:annals:problem:{}", self.kind),
            "title": self.kind.replace('-', " "),
            "status": self.status.as_u16(),
            "detail": self.detail,
        });
        if let Value::Object(body) = &mut body {
            body.extend(self.more);
        }
        let mut response = (self.status, body.to_string()).into_response();
        let headers = response.headers_mut();
        let content = HeaderValue::from_static("application/problem+json");
        headers.insert(header::CONTENT_TYPE, content);
        if let Some(wait) = self.retry_after {
            // Whole seconds, rounded up: earlier would be too early.
            let seconds = wait.as_millis().div_ceil(1000).max(1) as u64;
            headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        if self.status == StatusCode::UNAUTHORIZED {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        response
    }
}

impl From<Denied> for Problem {
    fn from(denied: Denied) -> Self {
        match denied {
            Denied::Unknown(detail) => Self::new(StatusCode::UNAUTHORIZED, "unauthorized", detail),
            Denied::Forbidden(detail) => Self::new(StatusCode::FORBIDDEN, "forbidden", detail),
        }
    }
}

impl From<Refusal> for Problem {
    fn from(refusal: Refusal) -> Self {
        let detail = refusal.to_string();
        let (status, kind) = match &refusal {
            Refusal::RateLimited { .. } => (StatusCode::TOO_MANY_REQUESTS, "rate-limited"),
            Refusal::NoKey { .. } => (StatusCode::BAD_REQUEST, "idempotency-key-missing"),
            Refusal::TimedOut { .. } => (StatusCode::GATEWAY_TIMEOUT, "timed-out"),
            Refusal::Overloaded { .. } => (StatusCode::SERVICE_UNAVAILABLE, "overloaded"),
            Refusal::Full { .. } => (StatusCode::SERVICE_UNAVAILABLE, "overloaded"),
            Refusal::CircuitOpen { .. } => (StatusCode::SERVICE_UNAVAILABLE, "unavailable"),
        };
        let problem = Self::new(status, kind, detail);
        match (refusal.retry_after(), status) {
            (Some(wait), _) => problem.retry_after(wait),
            (None, StatusCode::SERVICE_UNAVAILABLE) => problem.retry_after(Duration::from_secs(1)),
            (None, _) => problem,
        }
    }
}

impl<E: std::error::Error + 'static> From<BusError<E>> for Problem {
    fn from(error: BusError<E>) -> Self {
        match error {
            BusError::Rejected(reason) => {
                Self::new(StatusCode::UNPROCESSABLE_ENTITY, "rejected", chain(&reason))
            }
            BusError::Failed(error) => error.into(),
            BusError::Refused(refusal) => refusal.into(),
        }
    }
}

impl From<StoreError> for Problem {
    fn from(error: StoreError) -> Self {
        let detail = error.to_string();
        match &error {
            StoreError::Conflict { actual, .. } => {
                Self::new(StatusCode::CONFLICT, "conflict", detail).with("version", actual.get())
            }
            StoreError::StreamDeleted { .. } => Self::new(StatusCode::GONE, "deleted", detail),
            StoreError::StreamArchived { .. } => Self::new(StatusCode::GONE, "archived", detail),
            StoreError::KeyReused { .. } => {
                Self::new(StatusCode::UNPROCESSABLE_ENTITY, "idempotency-key-reused", detail)
            }
            StoreError::KeyInFlight => {
                Self::new(StatusCode::CONFLICT, "idempotency-key-in-flight", detail)
                    .retry_after(Duration::from_secs(1))
            }
            StoreError::InvalidStream { .. }
            | StoreError::InvalidAppend { .. }
            | StoreError::Future { .. }
            | StoreError::BeyondEnd { .. } => Self::bad_request(detail),
            StoreError::Indeterminate { .. } => {
                tracing::warn!(error = chain(&error), "the outcome of a command is not known");
                Self::new(StatusCode::GATEWAY_TIMEOUT, "indeterminate", detail)
            }
            error if error.is_retryable() => Self::unavailable(error),
            error => Self::internal(error),
        }
    }
}

impl From<ProjectionError> for Problem {
    fn from(error: ProjectionError) -> Self {
        let detail = error.to_string();
        match error {
            ProjectionError::Store(error) => error.into(),
            ProjectionError::NoColumn { .. } | ProjectionError::BadText { .. } => {
                Self::bad_request(chain(&error))
            }
            ProjectionError::NoHistory { .. }
            | ProjectionError::NotAMoment
            | ProjectionError::NotInline { .. } => Self::bad_request(detail),
            ProjectionError::Forgotten { .. } => Self::new(StatusCode::GONE, "forgotten", detail),
            ProjectionError::NotBuilt { .. }
            | ProjectionError::NotReached { .. }
            | ProjectionError::TimedOut { .. } => {
                Self::new(StatusCode::SERVICE_UNAVAILABLE, "not-reached", detail)
                    .retry_after(Duration::from_secs(1))
            }
            error if error.is_retryable() => Self::unavailable(&error),
            error => Self::internal(&error),
        }
    }
}

/// An error and its causes, on one line.
pub(super) fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let causes = std::iter::successors(Some(error), |error| error.source());
    causes.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}
