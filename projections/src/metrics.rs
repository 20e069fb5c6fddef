//! What the read side tells a recorder of metrics, and [`watch`], which shows what the database knows: how far each
//! projection is behind, who holds which lease, how sagas are doing.
//!
//! Names and labels follow the scheme of [`annals_eventstore::metrics`].

mod watch;

use std::time::{Duration, Instant};

use annals_eventstore::metrics::Metric;
use chrono::{DateTime, Utc};
use metrics::{Unit, counter, histogram};

pub use self::watch::watch;
use crate::{
    error::Error,
    query::cache,
    saga::{Direction, SagaStatus},
};

const EVENTS: Metric = Metric::counter(
    "annals_projection_events_total",
    &["projection"],
    "Events that were applied by this process",
);
const BATCH: Metric = Metric::histogram(
    "annals_projection_batch_duration_seconds",
    Unit::Seconds,
    &["projection", "outcome"],
    "How long batches of events took, from the first statement to the commit",
);
const DELAY: Metric = Metric::histogram(
    "annals_projection_delay_seconds",
    Unit::Seconds,
    &["projection"],
    "Age of the oldest event of a batch when its rows were committed",
);
const PARKED: Metric = Metric::counter(
    "annals_projection_parked_total",
    &["projection"],
    "How often an event failed and its stream was parked",
);
const QUERY: Metric = Metric::histogram(
    "annals_query_duration_seconds",
    Unit::Seconds,
    &["read_model", "outcome"],
    "How long queries on read models took, until their first row",
);
const STEP: Metric = Metric::histogram(
    "annals_saga_step_duration_seconds",
    Unit::Seconds,
    &["saga", "step", "direction", "outcome"],
    "How long attempts at the calls of sagas took",
);
const TRANSITIONS: Metric = Metric::counter(
    "annals_saga_transitions_total",
    &["saga", "status"],
    "How often sagas came to a status",
);
const TIMER_LATENESS: Metric = Metric::histogram(
    "annals_saga_timer_lateness_seconds",
    Unit::Seconds,
    &["saga"],
    "How late timers of sagas went off",
);

const READ_SIDE: &[Metric] =
    &[EVENTS, BATCH, DELAY, PARKED, QUERY, STEP, TRANSITIONS, TIMER_LATENESS];

const CACHE: &[Metric] = &[cache::LOOKUPS, cache::BYTES];

/// The metrics of the read side, and of the feeds from Kafka where there are some.
pub fn all() -> impl Iterator<Item = &'static Metric> {
    #[cfg(feature = "kafka")]
    let kafka = crate::kafka::metrics();
    #[cfg(not(feature = "kafka"))]
    let kafka = std::iter::empty();
    READ_SIDE.iter().chain(CACHE).chain(watch::METRICS).chain(kafka)
}

/// Tells the recorder what they mean. Running a worker, or [`watch`], does this.
pub fn describe() {
    all().for_each(Metric::describe);
}

/// A slice of a projection is worked on: what has not happened yet is zero, and not unknown.
pub(crate) fn begin(projection: &str) {
    counter!(EVENTS.name, "projection" => projection.to_owned()).increment(0);
    counter!(PARKED.name, "projection" => projection.to_owned()).increment(0);
}

/// A batch is applied, with so many events, the oldest of which was recorded then; or it is not.
pub(crate) fn applied(
    projection: &str,
    outcome: &Result<(), Error>,
    (events, oldest): (usize, DateTime<Utc>),
    took: Duration,
) {
    let label = || projection.to_owned();
    let name = if outcome.is_ok() { "applied" } else { "failed" };
    histogram!(BATCH.name, "projection" => label(), "outcome" => name).record(took.as_secs_f64());
    if outcome.is_ok() {
        counter!(EVENTS.name, "projection" => label()).increment(events as u64);
        // The clocks of this machine and of the database may differ a little.
        let age = (Utc::now() - oldest).to_std().unwrap_or_default();
        histogram!(DELAY.name, "projection" => label()).record(age.as_secs_f64());
    }
}

/// A stream is parked.
pub(crate) fn parked(projection: &str) {
    counter!(PARKED.name, "projection" => projection.to_owned()).increment(1);
}

/// Asks a read model.
pub(crate) async fn queried<T>(
    read_model: &'static str,
    query: impl Future<Output = Result<T, Error>>,
) -> Result<T, Error> {
    let began = Instant::now();
    let answer = query.await;
    let outcome = if answer.is_ok() { "answered" } else { "failed" };
    histogram!(QUERY.name, "read_model" => read_model, "outcome" => outcome)
        .record(began.elapsed().as_secs_f64());
    answer
}

/// What came of an attempt at a call of a saga.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Attempted {
    Done,
    Refused,
    Failed,
    PutOff,
}

impl Attempted {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::Refused => "refused",
            Self::Failed => "failed",
            Self::PutOff => "put_off",
        }
    }
}

/// An attempt at a call of a saga has come to its end. What has a name that the saga does not know any more, after
/// a step was renamed, is counted as one.
pub(crate) fn attempted(
    saga: &'static str,
    step: Option<&'static str>,
    direction: Direction,
    outcome: Attempted,
    took: Duration,
) {
    let direction = match direction {
        Direction::Do => "do",
        Direction::Undo => "undo",
    };
    let step = step.unwrap_or("unknown");
    let outcome = outcome.as_str();
    let step = histogram!(
        STEP.name,
        "saga" => saga, "step" => step, "direction" => direction, "outcome" => outcome
    );
    step.record(took.as_secs_f64());
}

/// Calls of sagas are made here.
pub(crate) fn begin_saga(saga: &'static str) {
    for status in ["running", "compensating", "stuck", "completed", "compensated", "aborted"] {
        counter!(TRANSITIONS.name, "saga" => saga, "status" => status).increment(0);
    }
}

/// A saga has come to a status.
pub(crate) fn turned(saga: &'static str, status: SagaStatus) {
    counter!(TRANSITIONS.name, "saga" => saga, "status" => status.as_str()).increment(1);
}

/// A timer went off.
pub(crate) fn went_off(saga: &'static str, late: Duration) {
    histogram!(TIMER_LATENESS.name, "saga" => saga).record(late.as_secs_f64());
}
