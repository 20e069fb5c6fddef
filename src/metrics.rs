//! What Annals tells a recorder of metrics: every metric with its kind, its unit and its labels.
//!
//! The crate [`metrics`](https://docs.rs/metrics) hands them to whichever recorder the program installs before it
//! opens a store. With the feature `prometheus`, [`telemetry::Prometheus`](crate::telemetry) is one, with an endpoint
//! for Prometheus.
//!
//! ```
//! for metric in annals::metrics::all() {
//!     println!("{} ({}): {}", metric.name, metric.kind.as_str(), metric.about);
//! }
//! ```

pub use annals_eventstore::metrics::{Metric, MetricKind};
pub use annals_projections::metrics::watch;

/// All of them, as far as the features are there.
pub fn all() -> impl Iterator<Item = &'static Metric> {
    #[cfg(feature = "bus")]
    let bus = crate::bus::METRICS;
    #[cfg(not(feature = "bus"))]
    let bus: &[Metric] = &[];
    #[cfg(feature = "gateway")]
    let gateway = crate::gateway::METRICS;
    #[cfg(not(feature = "gateway"))]
    let gateway: &[Metric] = &[];
    annals_eventstore::metrics::all()
        .chain(annals_projections::metrics::all())
        .chain(bus)
        .chain(gateway)
}

/// Tells the recorder what they mean. Opening a store, running a worker, and making a bus or a gateway does this for the
/// metrics of each.
pub fn describe() {
    all().for_each(Metric::describe);
}
