//! What a publisher tells a recorder of metrics, if there is one. Each has the label `context`.

use std::time::Duration;

use metrics::{Unit, counter, gauge, histogram};

use super::{producer::Failure, progress::Progress};
use crate::metrics::Metric;

const EVENTS: Metric = Metric::counter(
    "annals_publisher_events_total",
    &["context"],
    "Events that the broker has acknowledged",
);
const TRANSACTIONS: Metric = Metric::counter(
    "annals_publisher_transactions_total",
    &["context", "outcome"],
    "Transactions that were committed, or interrupted",
);
const TRANSACTION: Metric = Metric::histogram(
    "annals_publisher_transaction_duration_seconds",
    Unit::Seconds,
    &["context"],
    "How long transactions took, from begin to end",
);
const INTERRUPTIONS: Metric = Metric::counter(
    "annals_publisher_interruptions_total",
    &["context"],
    "How often publishing had to start over",
);
const ACTIVE: Metric = Metric::gauge(
    "annals_publisher_active",
    Unit::Count,
    &["context"],
    "1 if this publisher is the active one, 0 if it stands by",
);
const LAG: Metric = Metric::gauge(
    "annals_publisher_lag_events",
    Unit::Count,
    &["context"],
    "Positions of the log that the active publisher has before it",
);
const LAG_TIME: Metric = Metric::gauge(
    "annals_publisher_lag_seconds",
    Unit::Seconds,
    &["context"],
    "Age of the oldest event that the active publisher has before it",
);

/// What publishers tell.
pub(crate) const METRICS: &[Metric] =
    &[EVENTS, TRANSACTIONS, TRANSACTION, INTERRUPTIONS, ACTIVE, LAG, LAG_TIME];

/// A publisher begins to work: what has not happened yet is zero, and not unknown.
pub(super) fn begin(context: &str) {
    counter!(EVENTS.name, "context" => context.to_owned()).increment(0);
    counter!(INTERRUPTIONS.name, "context" => context.to_owned()).increment(0);
    gauge!(ACTIVE.name, "context" => context.to_owned()).set(0.0);
}

/// A transaction has come to its end.
pub(super) fn transaction<T>(context: &str, done: &Result<T, Failure>, took: Duration) {
    let outcome = if done.is_ok() { "committed" } else { "interrupted" };
    counter!(TRANSACTIONS.name, "context" => context.to_owned(), "outcome" => outcome).increment(1);
    histogram!(TRANSACTION.name, "context" => context.to_owned()).record(took.as_secs_f64());
}

/// Events are published.
pub(super) fn published(context: &str, events: usize) {
    counter!(EVENTS.name, "context" => context.to_owned()).increment(events as u64);
}

/// Publishing has to start over.
pub(super) fn interrupted(context: &str) {
    counter!(INTERRUPTIONS.name, "context" => context.to_owned()).increment(1);
}

/// How far the active publisher is behind.
pub(super) fn lag(context: &str, progress: &Progress) {
    gauge!(LAG.name, "context" => context.to_owned()).set(progress.lag_events() as f64);
    gauge!(LAG_TIME.name, "context" => context.to_owned()).set(progress.lag_time().as_secs_f64());
}

/// This publisher is the active one, for as long as this is there.
pub(super) struct Active<'a>(&'a str);

impl<'a> Active<'a> {
    pub(super) fn new(context: &'a str) -> Self {
        gauge!(ACTIVE.name, "context" => context.to_owned()).set(1.0);
        Self(context)
    }
}

impl Drop for Active<'_> {
    fn drop(&mut self) {
        gauge!(ACTIVE.name, "context" => self.0.to_owned()).set(0.0);
        // Another one is behind now, or nobody knows.
        gauge!(LAG.name, "context" => self.0.to_owned()).set(0.0);
        gauge!(LAG_TIME.name, "context" => self.0.to_owned()).set(0.0);
    }
}
