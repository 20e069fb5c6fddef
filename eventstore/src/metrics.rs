//! What a program tells a recorder of metrics, if it has installed one: each metric with its kind, its unit and
//! its labels.
//!
//! Names are `annals_`, what it is about, what is measured, and the unit; counters end in `_total`, as
//! Prometheus has it. Labels have few values: names that the program's text contains, or outcomes from a list. Streams,
//! keys and clients are never labels; logs and traces tell of those.
//!
//! The crate [`metrics`](https://docs.rs/metrics) hands them to whichever recorder the program installs before it
//! opens a store.

use std::time::Duration;

use metrics::{Unit, counter, gauge, histogram};

use crate::{backend::Outcome, error::Error};

/// A metric: what its name is, and what it means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Metric {
    /// Its name.
    pub name: &'static str,
    /// What kind of metric it is.
    pub kind: MetricKind,
    /// In what it is measured. A gauge of a state, and one that is 0 or 1, has [`Unit::Count`].
    pub unit: Unit,
    /// The names of its labels.
    pub labels: &'static [&'static str],
    /// What it tells, in a sentence.
    pub about: &'static str,
}

/// A kind of metric, as Prometheus knows them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum MetricKind {
    /// It only grows.
    Counter,
    /// It rises and falls.
    Gauge,
    /// How often, and how much of it each time.
    Histogram,
}

impl MetricKind {
    /// As Prometheus writes it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram => "histogram",
        }
    }
}

impl Metric {
    /// A counter of occurrences.
    pub const fn counter(
        name: &'static str,
        labels: &'static [&'static str],
        about: &'static str,
    ) -> Self {
        Self { name, kind: MetricKind::Counter, unit: Unit::Count, labels, about }
    }

    /// A gauge.
    pub const fn gauge(
        name: &'static str,
        unit: Unit,
        labels: &'static [&'static str],
        about: &'static str,
    ) -> Self {
        Self { name, kind: MetricKind::Gauge, unit, labels, about }
    }

    /// A histogram.
    pub const fn histogram(
        name: &'static str,
        unit: Unit,
        labels: &'static [&'static str],
        about: &'static str,
    ) -> Self {
        Self { name, kind: MetricKind::Histogram, unit, labels, about }
    }

    /// Tells the recorder what it means.
    pub fn describe(&self) {
        let Self { name, unit, about, .. } = *self;
        match self.kind {
            MetricKind::Counter => metrics::describe_counter!(name, unit, about),
            MetricKind::Gauge => metrics::describe_gauge!(name, unit, about),
            MetricKind::Histogram => metrics::describe_histogram!(name, unit, about),
        }
    }
}

pub(crate) const APPEND_DURATION: Metric = Metric::histogram(
    "annals_append_duration_seconds",
    Unit::Seconds,
    &["outcome"],
    "How long appends take, with their time in the queue",
);
pub(crate) const APPEND_EVENTS: Metric =
    Metric::counter("annals_append_events_total", &[], "Events that were recorded");
pub(crate) const APPEND_BATCH: Metric = Metric::histogram(
    "annals_append_batch_appends",
    Unit::Count,
    &[],
    "How many appends travel in one statement and one commit",
);
pub(crate) const QUEUE_APPENDS: Metric = Metric::gauge(
    "annals_append_queue_appends",
    Unit::Count,
    &[],
    "Appends that were accepted and have no outcome yet",
);
pub(crate) const QUEUE_BYTES: Metric = Metric::gauge(
    "annals_append_queue_bytes",
    Unit::Bytes,
    &[],
    "What the appends take that have no outcome yet",
);
pub(crate) const OLDEST_IN_FLIGHT: Metric = Metric::gauge(
    "annals_oldest_append_in_flight_seconds",
    Unit::Seconds,
    &["pid"],
    "Age of the append in flight that readers of the log have waited for, by server process",
);
pub(crate) const CIRCUIT_STATE: Metric = Metric::gauge(
    "annals_circuit_state",
    Unit::Count,
    &["circuit"],
    "What a circuit breaker does: 0 closed, 1 half open, 2 open",
);
pub(crate) const CIRCUIT_REFUSED: Metric = Metric::counter(
    "annals_circuit_refused_total",
    &["circuit"],
    "Calls that a circuit breaker did not let through",
);
pub(crate) const LEASE_TAKEN: Metric = Metric::counter(
    "annals_lease_taken_total",
    &["lease", "from"],
    "Leases that this process took: free ones, or over from a holder that did not give it back",
);
pub(crate) const LEASE_LOST: Metric = Metric::counter(
    "annals_lease_lost_total",
    &["lease"],
    "Leases of this process that another has taken over",
);

pub(crate) const CACHE_LOOKUPS: Metric = Metric::counter(
    "annals_aggregate_cache_lookups_total",
    &["category", "outcome"],
    "States of aggregates that were asked for: a hit, or a miss",
);

const STORE: &[Metric] = &[
    APPEND_DURATION,
    APPEND_EVENTS,
    APPEND_BATCH,
    QUEUE_APPENDS,
    QUEUE_BYTES,
    OLDEST_IN_FLIGHT,
    CIRCUIT_STATE,
    CIRCUIT_REFUSED,
    LEASE_TAKEN,
    LEASE_LOST,
    CACHE_LOOKUPS,
];

/// The metrics of the write side, and of the publisher where there is one.
pub fn all() -> impl Iterator<Item = &'static Metric> {
    #[cfg(feature = "kafka")]
    let publisher = crate::kafka::METRICS;
    #[cfg(not(feature = "kafka"))]
    let publisher: &[Metric] = &[];
    STORE.iter().chain(publisher)
}

/// Tells the recorder what they mean. Opening a store does this.
pub fn describe() {
    all().for_each(Metric::describe);
}

/// An append has come to its end.
pub(crate) fn appended(outcome: &Result<Outcome, Error>, events: usize, took: Duration) {
    let name = match outcome {
        Ok(Outcome::Recorded { .. }) => {
            counter!(APPEND_EVENTS.name).increment(events as u64);
            "recorded"
        }
        Ok(Outcome::Conflict { .. }) => "conflict",
        Ok(Outcome::KeyTaken) => "repeated",
        Ok(Outcome::NotLive { .. }) => "not_live",
        Err(Error::Overloaded { .. }) => "overloaded",
        Err(Error::TimedOut { .. }) => "timed_out",
        Err(Error::Locked { .. }) => "locked",
        Err(Error::Indeterminate { .. }) => "indeterminate",
        Err(_) => "failed",
    };
    histogram!(APPEND_DURATION.name, "outcome" => name).record(took.as_secs_f64());
}

/// A batch of appends is on its way.
pub(crate) fn batch(appends: usize) {
    histogram!(APPEND_BATCH.name).record(appends as f64);
}

/// What waits in the queue of a store. Stores of one process add up.
pub(crate) struct Depth {
    appends: metrics::Gauge,
    bytes: metrics::Gauge,
}

impl Depth {
    pub(crate) fn new() -> Self {
        Self { appends: gauge!(QUEUE_APPENDS.name), bytes: gauge!(QUEUE_BYTES.name) }
    }

    pub(crate) fn joined(&self, bytes: usize) {
        self.appends.increment(1.0);
        self.bytes.increment(bytes as f64);
    }

    pub(crate) fn left(&self, bytes: usize) {
        self.appends.decrement(1.0);
        self.bytes.decrement(bytes as f64);
    }
}

/// A lease was taken.
pub(crate) fn lease_taken(lease: &str, from: LeaseFrom) {
    let Some(lease) = label_of_lease(lease) else { return };
    let from = match from {
        LeaseFrom::Free => "free",
        LeaseFrom::Expired => "expired",
    };
    // What has not happened yet is zero, and not unknown.
    counter!(LEASE_LOST.name, "lease" => lease.clone()).increment(0);
    counter!(LEASE_TAKEN.name, "lease" => lease, "from" => from).increment(1);
}

/// Whom a lease was taken from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LeaseFrom {
    /// Nobody: it is new, or was given back.
    Free,
    /// A holder whose time was over.
    Expired,
}

/// A lease is another's now.
pub(crate) fn lease_lost(lease: &str) {
    if let Some(lease) = label_of_lease(lease) {
        counter!(LEASE_LOST.name, "lease" => lease).increment(1);
    }
}

/// Those by which workers show that they are there are numbered, and no labels.
fn label_of_lease(lease: &str) -> Option<String> {
    (!lease.starts_with("worker:")).then(|| lease.to_owned())
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn names_follow_one_scheme() {
        let mut names = HashSet::new();
        for Metric { name, kind, unit, about, .. } in all() {
            assert!(names.insert(name), "{name} is there twice");
            assert!(name.starts_with("annals_"), "{name}");
            assert_eq!(name.ends_with("_total"), *kind == MetricKind::Counter, "{name}");
            assert_eq!(name.ends_with("_seconds"), *unit == Unit::Seconds, "{name}");
            assert_eq!(name.ends_with("_bytes"), *unit == Unit::Bytes, "{name}");
            assert!(!about.is_empty() && !about.ends_with('.'), "{name}: {about}");
        }
    }
}
