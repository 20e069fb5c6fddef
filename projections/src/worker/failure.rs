//! What becomes of events that fail, and of projections whose events fail one after the other.

use std::time::{Duration, Instant};

use tokio_postgres::error::SqlState;

use crate::error::Error;

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
pub(super) struct Interruptions {
    count: usize,
}

impl Interruptions {
    /// How long to wait before the next try. Work that went well for a while, since `started`, starts over
    /// with short delays.
    pub(super) fn delay(&mut self, started: Instant) -> Duration {
        if started.elapsed() > Duration::from_secs(10) {
            self.count = 0;
        }
        let delay = DELAYS[self.count.min(DELAYS.len() - 1)];
        self.count += 1;
        delay
    }

    pub(super) fn succeeded(&mut self) {
        self.count = 0;
    }
}

/// True if it may be what came of one event that the database refuses: a value, or a constraint. What is
/// wrong with a table or with rights is no event's fault.
pub(super) fn may_be_of_an_event(error: &Error) -> bool {
    let Error::Database { source, .. } = error else {
        return matches!(error, Error::UnstableKey { .. });
    };
    match source.code().map(SqlState::code) {
        // Data exceptions, integrity constraints, limits of the program, and what triggers raise.
        Some(code) => ["22", "23", "54", "P0"].iter().any(|class| code.starts_with(class)),
        // A value that does not fit its column is refused before it is sent.
        None => !error.is_retryable(),
    }
}

/// The text of an error with its causes, in one line.
pub(super) fn text(error: &(dyn std::error::Error + 'static)) -> String {
    let causes = std::iter::successors(Some(error), |error| error.source());
    let mut line = String::new();
    for cause in causes {
        let text = cause.to_string();
        if !line.ends_with(&text) {
            line = if line.is_empty() { text } else { format!("{line}: {text}") };
        }
    }
    line.replace('\n', " ")
}
