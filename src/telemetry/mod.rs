//! What a running program tells of itself: metrics for Prometheus, traces and logs.
//!
//! | | feature | |
//! |---|---|---|
//! | metrics | `prometheus` | [`Prometheus`] records them and serves `GET /metrics` |
//! | traces | `otlp` | [`init`] exports spans by OTLP, to a collector, Jaeger, Tempo or any other that speaks it |
//! | logs | `otlp` | [`init`] writes them as text or as JSON, with the ids by which one finds the rest |
//!
//! ```no_run
//! # #[cfg(all(feature = "otlp", feature = "prometheus"))]
//! # async fn run() -> Result<(), Box<dyn std::error::Error>> {
//! use annals::{EventStore, Worker, health::Health, telemetry};
//!
//! // Before all else: logs, and traces where OTEL_EXPORTER_OTLP_ENDPOINT says. Flushed when dropped.
//! let _telemetry = telemetry::init("bank").start()?;
//! let metrics = telemetry::Prometheus::install()?;
//! let store = EventStore::connect("postgres://localhost/bank").await?;
//! // Lag, leases and sagas, as the database knows them.
//! let _watching = metrics.watch(&store);
//! // A worker without HTTP of its own: /metrics, /health/live and /health/ready.
//! let routes = metrics.router().merge(Health::new().store(&store).router());
//! let _listening = telemetry::listen("0.0.0.0:9464", routes).await?;
//! Worker::new(&store).run().await?;
//! # Ok(()) }
//! ```
#![cfg_attr(
    not(all(feature = "otlp", feature = "prometheus")),
    allow(rustdoc::broken_intra_doc_links)
)]

#[cfg(feature = "otlp")]
mod init;
#[cfg(feature = "prometheus")]
mod listen;
#[cfg(feature = "otlp")]
mod logs;
#[cfg(feature = "prometheus")]
mod prometheus;

#[cfg(feature = "otlp")]
pub use self::{
    init::{Builder, Telemetry, TelemetryError, init},
    logs::Logs,
};
#[cfg(feature = "prometheus")]
pub use self::{
    listen::{Listening, listen},
    prometheus::{InstallError, Prometheus, Watching},
};
