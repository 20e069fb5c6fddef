//! Why a batch failed, and what that says about each of its appends.

use std::{sync::Arc, time::Duration};

use chrono::DateTime;
use tokio_postgres::error::SqlState;

use super::super::{inline::refusal, is_lost, is_transient};
#[cfg(feature = "fail-points")]
use crate::testkit::faults::Injected;
use crate::{
    backend::Request,
    clock::{Clock, WentBack},
    error::Error,
};

/// SQLSTATEs that the store's functions raise.
pub(in crate::postgres) const CLOCK_WENT_BACK: &str = "AN001";
pub(in crate::postgres) const KEY_TAKEN_MEANWHILE: &str = "AN002";

/// Why a batch failed. Shared by all its appends.
#[derive(Clone, Debug)]
pub(in crate::postgres) enum Failure {
    NoConnection(Arc<Error>),
    /// The statement was not sent.
    Unsent(Arc<tokio_postgres::Error>),
    Statement(Arc<tokio_postgres::Error>),
    /// Another transaction holds a stream, or the lock of the clock, for too long.
    Locked {
        waited: Duration,
        source: Arc<tokio_postgres::Error>,
    },
    /// No answer came in time.
    NoAnswer(Arc<tokio::time::error::Elapsed>),
    /// A fail point lost the answer.
    #[cfg(feature = "fail-points")]
    AnswerLost,
    /// The store was closed before the statement was sent.
    Closed,
    /// The store was closed before the answer came.
    CutOff,
    /// A time within an append is before an earlier one.
    Time(WentBack),
}

/// What to do with the batch next.
pub(super) enum Next {
    /// It surely had no effect, and the same again may succeed at once.
    Again,
    /// Others came first with a time that the clock has reached by now.
    AgainLater,
    GiveUp,
}

impl Failure {
    pub(super) fn of_statement(error: tokio_postgres::Error, waited: Duration) -> Self {
        let source = Arc::new(error);
        if source.code() == Some(&SqlState::LOCK_NOT_AVAILABLE) {
            Self::Locked { waited, source }
        } else {
            Self::Statement(source)
        }
    }

    /// True if no append of the batch is to blame: sending them in parts would not help, or, where
    /// the batch may be recorded, would record them twice.
    pub(super) fn is_everyones(&self) -> bool {
        match self {
            Self::NoConnection(_)
            | Self::Unsent(_)
            | Self::NoAnswer(_)
            | Self::Closed
            | Self::CutOff => true,
            #[cfg(feature = "fail-points")]
            Self::AnswerLost => true,
            Self::Statement(error) => {
                is_lost(error) || error.code() == Some(&SqlState::QUERY_CANCELED)
            }
            Self::Locked { .. } | Self::Time(_) => false,
        }
    }

    pub(super) fn next(&self, requests: &[&Request], clock: &Clock) -> Next {
        match self {
            // Another append came first with the time that the clock showed a moment later.
            Self::Statement(error) if clock_went_back(error).is_some() => {
                let brought = |request: &&Request| {
                    request.events.iter().any(|(_, event)| event.recorded_at.is_some())
                };
                match (clock_went_back(error), clock.supplied_now()) {
                    (Some(Error::ClockWentBack { last, .. }), Some(now))
                        if now >= last && !requests.iter().any(brought) =>
                    {
                        Next::AgainLater
                    }
                    _ => Next::GiveUp,
                }
            }
            Self::Statement(error) if !is_lost(error) => match error.code() {
                Some(state)
                    if *state == SqlState::T_R_SERIALIZATION_FAILURE
                        || *state == SqlState::T_R_DEADLOCK_DETECTED
                        || state.code() == KEY_TAKEN_MEANWHILE =>
                {
                    Next::Again
                }
                _ => Next::GiveUp,
            },
            // A pooled connection that died while idle shows it at its next use.
            Self::Unsent(error) if is_lost(error) => Next::Again,
            _ => Next::GiveUp,
        }
    }

    /// The error of one of the batch's appends.
    pub(in crate::postgres) fn to_error(&self, request: &Request) -> Error {
        match self {
            Self::Time(time) => (*time).into(),
            Self::Closed => Error::Closed,
            Self::CutOff => Error::Indeterminate { source: Box::new(Error::Closed) },
            Self::NoAnswer(elapsed) => Error::Indeterminate { source: Box::new(elapsed.clone()) },
            #[cfg(feature = "fail-points")]
            Self::AnswerLost => Injected::at("append-answered").answer_lost(),
            Self::NoConnection(error) => Error::shared("connect to append", error),
            Self::Unsent(error) => Error::Database {
                action: "prepare the append",
                source: Box::new(error.clone()),
                retryable: is_lost(error) || error.code().is_some_and(is_transient),
            },
            Self::Locked { waited, source } => Error::Locked {
                streams: request.streams.iter().map(|(stream, _)| stream.clone()).collect(),
                waited: *waited,
                source: Box::new(source.clone()),
            },
            Self::Statement(error) if is_lost(error) => {
                Error::Indeterminate { source: Box::new(error.clone()) }
            }
            Self::Statement(error) => clock_went_back(error)
                .or_else(|| refusal(error))
                .unwrap_or_else(|| Error::Database {
                    action: "append",
                    source: Box::new(error.clone()),
                    retryable: error.code().is_some_and(is_transient),
                }),
        }
    }
}

/// Reads the refusal of a supplied time; the time given is filled in by who knows it.
fn clock_went_back(error: &tokio_postgres::Error) -> Option<Error> {
    let error = error.as_db_error().filter(|error| error.code().code() == CLOCK_WENT_BACK)?;
    let last = DateTime::from_timestamp_micros(error.detail()?.parse().ok()?)?;
    Some(Error::ClockWentBack { given: last, last })
}
