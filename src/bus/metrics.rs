//! What a bus tells a recorder of metrics.

use annals_eventstore::metrics::Metric;
use metrics::Unit;

pub(super) const DURATION: Metric = Metric::histogram(
    "annals_command_duration_seconds",
    Unit::Seconds,
    &["command", "outcome"],
    "How long commands take, with all their attempts",
);
pub(super) const IN_FLIGHT: Metric = Metric::gauge(
    "annals_commands_in_flight",
    Unit::Count,
    &[],
    "Commands that the load shed has let in and that are under way",
);
pub(super) const RETRIES: Metric = Metric::counter(
    "annals_command_retries_total",
    &["outcome"],
    "How often commands were tried again, or there was no budget for it",
);
pub(super) const RUNNING: Metric = Metric::gauge(
    "annals_bulkhead_running",
    Unit::Count,
    &["compartment"],
    "Commands that have a place in a compartment",
);
pub(super) const WAITING: Metric = Metric::gauge(
    "annals_bulkhead_waiting",
    Unit::Count,
    &["compartment"],
    "Commands that wait for a place in a compartment",
);

/// All of them.
pub(crate) const METRICS: &[Metric] = &[DURATION, IN_FLIGHT, RETRIES, RUNNING, WAITING];
