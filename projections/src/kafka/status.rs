//! What can be seen of a subscription.

use std::{sync::Arc, time::Duration};

use annals_eventstore::{Position, metrics::Metric};
use metrics::Unit;
use tokio::sync::watch;

/// How far a subscription has come, and what it is doing. Get it from
/// [`Subscription::status`](super::Subscription::status).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct FeedStatus {
    /// What it is doing.
    pub state: FeedState,
    /// Up to where pages were taken from it.
    pub position: Position,
    /// Up to where the publisher says that all is published.
    pub published: Position,
    /// How many records lie between the two, about: the ends of transactions count as well.
    pub lag_records: u64,
    /// How old the last event is that was taken, while there are more; none once there are not.
    pub lag: Duration,
    /// How many events it holds that were not taken yet.
    pub waiting_events: usize,
    /// How much memory these take, in bytes, about.
    pub waiting_bytes: usize,
}

/// What a subscription is doing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum FeedState {
    /// It looks for the broker, and for the place where it begins.
    #[default]
    Connecting,
    /// It reads, or waits for new records.
    Reading,
    /// It holds as much as it may, and waits for pages to be taken.
    Full,
    /// The broker does not answer. Reading goes on by itself when it does again.
    Unreachable {
        /// What the last attempt to reach it said.
        reason: String,
    },
    /// It has ended, with the error that [`next`](super::Subscription::next) returns.
    Ended,
}

const LAG_RECORDS: Metric = Metric::gauge(
    "annals_kafka_feed_lag_records",
    Unit::Count,
    &["feed"],
    "Records in the topics that were not taken yet",
);
const LAG_SECONDS: Metric = Metric::gauge(
    "annals_kafka_feed_lag_seconds",
    Unit::Seconds,
    &["feed"],
    "Age of the last event that was taken, while there are more",
);
const WAITING: Metric = Metric::gauge(
    "annals_kafka_feed_waiting_bytes",
    Unit::Bytes,
    &["feed"],
    "Memory of events that wait to be taken",
);
const EVENTS: Metric = Metric::counter(
    "annals_kafka_feed_events_total",
    &["feed"],
    "Events that were taken from Kafka",
);
const UNDECODABLE: Metric =
    Metric::counter("annals_kafka_feed_undecodable_total", &["feed"], "Records that are no events");

/// What subscriptions tell.
pub(super) const METRICS: &[Metric] = &[LAG_RECORDS, LAG_SECONDS, WAITING, EVENTS, UNDECODABLE];

/// Tells what happens: to those who watch, in metrics, and in the log whenever the state changes.
#[derive(Debug)]
pub(super) struct Reporter {
    label: Arc<str>,
    status: watch::Sender<FeedStatus>,
}

impl Reporter {
    pub(super) fn new(label: Arc<str>, position: Position) -> Self {
        METRICS.iter().for_each(Metric::describe);
        for counter in [EVENTS, UNDECODABLE] {
            // What has not happened yet is zero, and not unknown.
            metrics::counter!(counter.name, "feed" => label.to_string()).increment(0);
        }
        let status = watch::Sender::new(FeedStatus { position, ..FeedStatus::default() });
        Self { label, status }
    }

    pub(super) fn subscribe(&self) -> watch::Receiver<FeedStatus> {
        self.status.subscribe()
    }

    pub(super) fn state(&self, state: FeedState) {
        let label = &*self.label;
        self.status.send_if_modified(|status| {
            if status.state == state {
                return false;
            }
            match (&status.state, &state) {
                // The same outage in other words.
                (FeedState::Unreachable { .. }, FeedState::Unreachable { reason }) => {
                    tracing::debug!(label, reason, "Kafka still does not answer");
                }
                (_, FeedState::Unreachable { reason }) => {
                    tracing::warn!(label, reason, "Kafka does not answer; reading waits for it");
                }
                (FeedState::Unreachable { .. }, FeedState::Reading) => {
                    tracing::info!(label, "Kafka answers again");
                }
                (_, state) => tracing::debug!(label, ?state, "reading from Kafka"),
            }
            status.state = state;
            true
        });
    }

    /// Sets all but the state.
    pub(super) fn figures(&self, figures: FeedStatus) {
        self.status.send_if_modified(|status| {
            let figures = FeedStatus { state: status.state.clone(), ..figures };
            if *status == figures {
                return false;
            }
            let label = || self.label.to_string();
            metrics::gauge!(LAG_RECORDS.name, "feed" => label()).set(figures.lag_records as f64);
            metrics::gauge!(LAG_SECONDS.name, "feed" => label()).set(figures.lag.as_secs_f64());
            metrics::gauge!(WAITING.name, "feed" => label()).set(figures.waiting_bytes as f64);
            *status = figures;
            true
        });
    }

    pub(super) fn taken(&self, events: usize) {
        metrics::counter!(EVENTS.name, "feed" => self.label.to_string()).increment(events as u64);
    }

    pub(super) fn undecodable(&self) {
        metrics::counter!(UNDECODABLE.name, "feed" => self.label.to_string()).increment(1);
    }
}
