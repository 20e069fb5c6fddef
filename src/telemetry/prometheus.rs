//! Metrics for Prometheus: a recorder, and the route that shows what it has recorded.

use std::{io, thread, time::Duration};

use annals_eventstore::EventStore;
use axum::{Router, response::IntoResponse, routing::get};
use http::header;
use metrics_exporter_prometheus::{BuildError, Matcher, PrometheusBuilder, PrometheusHandle};
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::metrics::{self, MetricKind};

/// Upper bounds of what takes a fraction of a second as a rule.
const DURATIONS: [f64; 15] =
    [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0];
/// Upper bounds of what may take hours when something is wrong.
const DELAYS: [f64; 12] =
    [0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.5, 1.0, 5.0, 30.0, 300.0, 3600.0];
/// Upper bounds of numbers.
const COUNTS: [f64; 10] = [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0];

/// How often what was recorded is summed up, so that memory stays bounded where nobody asks.
const UPKEEP: Duration = Duration::from_secs(5);
/// How often [`Prometheus::watch`] looks at the database: several times between two scrapes, as a rule.
const WATCH: Duration = Duration::from_secs(5);

/// Why no recorder was installed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum InstallError {
    /// The program has one already.
    #[error("no recorder of metrics was installed; is there one already?")]
    Recorder(#[source] BuildError),
    /// There is no thread for its upkeep.
    #[error("no thread for the upkeep of metrics")]
    Thread(#[source] io::Error),
}

/// The recorder of a program's metrics: those of Annals ([`metrics::all`]), and all others that are recorded with the
/// crate `metrics`. Clones show the same.
#[derive(Clone, Debug)]
pub struct Prometheus {
    handle: PrometheusHandle,
}

impl Prometheus {
    /// Installs it for the whole program. Do so before a store is opened: what was recorded earlier is lost.
    ///
    /// # Errors
    /// If the program has a recorder already.
    pub fn install() -> Result<Self, InstallError> {
        let handle = builder().and_then(PrometheusBuilder::install_recorder);
        let handle = handle.map_err(InstallError::Recorder)?;
        metrics::describe();
        let upkeep = handle.clone();
        let keep_up = move || {
            loop {
                thread::sleep(UPKEEP);
                upkeep.run_upkeep();
            }
        };
        // The recorder is the program's to its end, and so is the thread.
        let thread = thread::Builder::new().name("annals-metrics".to_owned()).spawn(keep_up);
        thread.map_err(InstallError::Thread)?;
        Ok(Self { handle })
    }

    /// All that is recorded, in the text format of Prometheus.
    pub fn render(&self) -> String {
        self.handle.render()
    }

    /// The route `GET /metrics`, to merge into a router or to [`listen`](super::listen) with.
    pub fn router<S: Clone + Send + Sync + 'static>(&self) -> Router<S> {
        let handle = self.handle.clone();
        let show = move || async move {
            let kind = "text/plain; version=0.0.4; charset=utf-8";
            ([(header::CONTENT_TYPE, kind)], handle.render()).into_response()
        };
        Router::new().route("/metrics", get(show))
    }

    /// Shows what the database of a store knows every five seconds ([`metrics::watch`]), until what this returns is
    /// dropped. One process is enough, and several do no harm. Of a store in memory there is nothing to show.
    ///
    /// It needs a runtime of tokio.
    pub fn watch(&self, store: &EventStore) -> Watching {
        let (store, stop) = (store.clone(), CancellationToken::new());
        let told = stop.clone();
        tokio::spawn(async move {
            if let Err(error) = metrics::watch(&store, WATCH, told).await {
                tracing::warn!(%error, "no gauges of projections, leases and sagas");
            }
        });
        Watching { _stop: stop.drop_guard() }
    }
}

/// Looks at the database as long as it is there.
#[derive(Debug)]
#[must_use = "dropped, it stops looking"]
pub struct Watching {
    _stop: DropGuard,
}

fn builder() -> Result<PrometheusBuilder, BuildError> {
    // A program's own, too.
    let mut builder = PrometheusBuilder::new()
        .set_buckets_for_metric(Matcher::Suffix("_seconds".to_owned()), &DURATIONS)?;
    for metric in metrics::all().filter(|metric| metric.kind == MetricKind::Histogram) {
        let bounds: &[f64] = match metric.name {
            name if name.ends_with("_delay_seconds") || name.ends_with("_lateness_seconds") => {
                &DELAYS
            }
            name if name.ends_with("_seconds") => &DURATIONS,
            _ => &COUNTS,
        };
        let matcher = Matcher::Full(metric.name.to_owned());
        builder = builder.set_buckets_for_metric(matcher, bounds)?;
    }
    Ok(builder)
}
