//! What a publisher tells a recorder of metrics, if there is one. Each has the label `context`.

use std::time::Duration;

use metrics::{
    Unit, counter, describe_counter, describe_gauge, describe_histogram, gauge, histogram,
};

use super::{producer::Failure, progress::Progress};

const EVENTS: &str = "annals_publisher_events_total";
const TRANSACTIONS: &str = "annals_publisher_transactions_total";
const TRANSACTION: &str = "annals_publisher_transaction_seconds";
const INTERRUPTIONS: &str = "annals_publisher_interruptions_total";
const ACTIVE: &str = "annals_publisher_active";
const LAG: &str = "annals_publisher_lag_events";
const LAG_TIME: &str = "annals_publisher_lag_seconds";

/// Tells what they mean.
pub(super) fn describe() {
    describe_counter!(EVENTS, Unit::Count, "Events that the broker has acknowledged");
    describe_counter!(
        TRANSACTIONS,
        Unit::Count,
        "Transactions that were committed, or not (outcome)"
    );
    describe_histogram!(
        TRANSACTION,
        Unit::Seconds,
        "How long transactions took, from begin to end"
    );
    describe_counter!(INTERRUPTIONS, Unit::Count, "How often publishing had to start over");
    describe_gauge!(ACTIVE, "1 if this publisher is the active one, 0 if it stands by");
    describe_gauge!(
        LAG,
        Unit::Count,
        "Positions of the log that the active publisher has before it"
    );
    describe_gauge!(
        LAG_TIME,
        Unit::Seconds,
        "Age of the oldest event that the active publisher has before it"
    );
}

/// A transaction has come to its end.
pub(super) fn transaction<T>(context: &str, done: &Result<T, Failure>, took: Duration) {
    let outcome = if done.is_ok() { "committed" } else { "interrupted" };
    counter!(TRANSACTIONS, "context" => context.to_owned(), "outcome" => outcome).increment(1);
    histogram!(TRANSACTION, "context" => context.to_owned()).record(took.as_secs_f64());
}

/// Events are published.
pub(super) fn published(context: &str, events: usize) {
    counter!(EVENTS, "context" => context.to_owned()).increment(events as u64);
}

/// Publishing has to start over.
pub(super) fn interrupted(context: &str) {
    counter!(INTERRUPTIONS, "context" => context.to_owned()).increment(1);
}

/// How far the active publisher is behind.
pub(super) fn lag(context: &str, progress: &Progress) {
    gauge!(LAG, "context" => context.to_owned()).set(progress.lag_events() as f64);
    gauge!(LAG_TIME, "context" => context.to_owned()).set(progress.lag_time().as_secs_f64());
}

/// This publisher is the active one, for as long as this is there.
pub(super) struct Active<'a>(&'a str);

impl<'a> Active<'a> {
    pub(super) fn new(context: &'a str) -> Self {
        gauge!(ACTIVE, "context" => context.to_owned()).set(1.0);
        Self(context)
    }
}

impl Drop for Active<'_> {
    fn drop(&mut self) {
        gauge!(ACTIVE, "context" => self.0.to_owned()).set(0.0);
        // Another one is behind now, or nobody knows.
        gauge!(LAG, "context" => self.0.to_owned()).set(0.0);
        gauge!(LAG_TIME, "context" => self.0.to_owned()).set(0.0);
    }
}
