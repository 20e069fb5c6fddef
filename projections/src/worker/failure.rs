//! What becomes of events that fail, and of projections whose events fail one after the other.

use std::time::{Duration, Instant};

use annals_eventstore::Error as StoreError;
use tokio_postgres::{Error as PostgresError, error::SqlState};

use crate::{
    error::{Error, may_pass},
    guard::Cause,
};

/// What a worker does about an event that fails by itself: it does not decode, the projection's code fails
/// on it, or the database refuses what comes of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum OnFailure {
    /// The event is parked, and with it the later events of its stream, so that no stream is applied out
    /// of order and none with a hole. All other streams go on. What is parked is listed by
    /// [`parked`](crate::control::parked) until somebody retries or discards it.
    #[default]
    Park,
    /// The worker ends with the error. All before the event is applied, nothing behind it.
    Stop,
}

/// How long to wait after a failure that may pass.
const DELAYS: [Duration; 5] = [
    Duration::from_millis(50),
    Duration::from_millis(200),
    Duration::from_millis(500),
    Duration::from_secs(1),
    Duration::from_secs(2),
];

/// Failures that may pass, one after the other.
#[derive(Debug, Default)]
pub(crate) struct Interruptions {
    count: usize,
}

impl Interruptions {
    /// How long to wait before the next try. Work that went well for a while, since `started`, starts over
    /// with short delays.
    pub(crate) fn delay(&mut self, started: Instant) -> Duration {
        if started.elapsed() > Duration::from_secs(10) {
            self.count = 0;
        }
        let delay = DELAYS[self.count.min(DELAYS.len() - 1)];
        self.count += 1;
        delay
    }
}

/// True if it may be what came of one event that the database refuses: a value, or a constraint. What is
/// wrong with a table or with rights is no event's fault.
pub(crate) fn may_be_of_an_event(error: &Error) -> bool {
    match error {
        Error::Database { source, .. } => match source.code() {
            // Not if it ended the session, for a reason that may be of the same class.
            Some(code) => !may_pass(source) && is_of_a_value(code),
            // A value that does not fit its column is refused before it is sent.
            None => !error.is_retryable(),
        },
        Error::Sql { source, retryable, .. } => !retryable && !is_of_all(source),
        _ => matches!(error, Error::UnstableKey { .. } | Error::UnfitValue { .. }),
    }
}

/// Data exceptions, integrity constraints, limits of the program, what triggers raise, and what a statement after
/// one of these fails with.
fn is_of_a_value(code: &SqlState) -> bool {
    ["21", "22", "23", "25", "44", "54", "P0"].iter().any(|class| code.code().starts_with(class))
}

/// True for the error of a user's code if something in the database is wrong that no event has brought.
fn is_of_all(cause: &Cause) -> bool {
    let codes = causes(&**cause).filter_map(|cause| cause.downcast_ref::<PostgresError>()?.code());
    codes.into_iter().any(|code| !is_of_a_value(code))
}

/// True for the error of a user's code if it comes from the database or the store and may pass.
pub(crate) fn passes(cause: &Cause) -> bool {
    causes(&**cause).any(|cause| {
        cause.downcast_ref::<PostgresError>().is_some_and(may_pass)
            || cause.downcast_ref::<StoreError>().is_some_and(|error| {
                error.is_retryable() || matches!(error, StoreError::Indeterminate { .. })
            })
    })
}

fn causes<'a>(
    error: &'a (dyn std::error::Error + 'static),
) -> impl Iterator<Item = &'a (dyn std::error::Error + 'static)> {
    std::iter::successors(Some(error), |error| error.source())
}

/// The text of an error with its causes, in one line.
pub(crate) fn text(error: &(dyn std::error::Error + 'static)) -> String {
    let mut line = String::new();
    for cause in causes(error) {
        let text = cause.to_string();
        if !line.ends_with(&text) {
            line = if line.is_empty() { text } else { format!("{line}: {text}") };
        }
    }
    line.replace('\n', " ")
}
