//! Logs and traces of a program in one line: where they go, and that nothing is lost at its end.

use std::{env, io};

use opentelemetry::trace::TracerProvider;
use opentelemetry_otlp::{ExporterBuildError, SpanExporter, WithExportConfig};
use opentelemetry_sdk::{
    Resource,
    trace::{Sampler, SdkTracerProvider},
};
use tracing::{Level, Metadata, Subscriber, level_filters::LevelFilter};
use tracing_subscriber::{
    Layer,
    filter::{ParseError, Targets, filter_fn},
    fmt::{MakeWriter, writer::BoxMakeWriter},
    layer::SubscriberExt,
    registry::LookupSpan,
    util::{SubscriberInitExt, TryInitError},
};

use super::logs::{LogLayer, Logs};

const ENDPOINT: &str = "OTEL_EXPORTER_OTLP_ENDPOINT";
const TRACES_ENDPOINT: &str = "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT";

/// Logs and traces of a program, by the name under which its spans are found.
///
/// Unless told otherwise, logs are text on the standard error stream, of the level `info` or as `RUST_LOG` says, and
/// traces are exported where the standard variables of OpenTelemetry say.
///
/// ```no_run
/// # fn main() -> Result<(), annals::telemetry::TelemetryError> {
/// use annals::telemetry::{self, Logs};
///
/// let _telemetry = telemetry::init("bank").logs(Logs::Json).sampling(0.1).start()?;
/// // Until the end of main. Then what is not exported yet is.
/// # Ok(()) }
/// ```
pub fn init(service: impl Into<String>) -> Builder {
    Builder {
        service: service.into(),
        version: None,
        endpoint: None,
        sampled: None,
        logs: Logs::default(),
        filter: None,
        writer: BoxMakeWriter::new(io::stderr),
    }
}

/// What is set before logs and traces begin. See [`init`].
#[derive(Debug)]
#[must_use = "nothing is logged before it is started"]
pub struct Builder {
    service: String,
    version: Option<String>,
    endpoint: Option<String>,
    sampled: Option<f64>,
    logs: Logs,
    filter: Option<String>,
    writer: BoxMakeWriter,
}

/// Why there are no logs and traces.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TelemetryError {
    /// What is exported goes to a collector nearby, by plain HTTP.
    #[error(
        "{endpoint} is not http://: send traces to a collector nearby, and let that one encrypt"
    )]
    Encrypted {
        /// Where traces were to go.
        endpoint: String,
    },
    /// The exporter cannot be made: of an endpoint that is no URL, say.
    #[error("traces cannot be exported")]
    Exporter(#[source] ExporterBuildError),
    /// The filter of logs cannot be read.
    #[error("{filter:?} does not say which logs to write; write for example \"info,annals=debug\"")]
    Filter {
        /// What was given, or is in `RUST_LOG`.
        filter: String,
        /// Why it cannot be read.
        source: ParseError,
    },
    /// The program has a subscriber already.
    #[error("the program's logs go elsewhere already")]
    Subscriber(#[source] TryInitError),
}

impl Builder {
    /// Sets the program's version, as the attribute `service.version` of all that is exported.
    pub fn version(mut self, version: impl Into<String>) -> Self {
        self.version = Some(version.into());
        self
    }

    /// Sets where traces go: the base URL of an OTLP/HTTP receiver, `http://localhost:4318` say. Unless set,
    /// `OTEL_EXPORTER_OTLP_ENDPOINT` or `OTEL_EXPORTER_OTLP_TRACES_ENDPOINT` says; without any of these, spans are not
    /// exported.
    pub fn endpoint(mut self, url: impl Into<String>) -> Self {
        self.endpoint = Some(url.into());
        self
    }

    /// Sets which share of the traces that begin here is sampled, from 0 to 1. A trace that comes from elsewhere is sampled
    /// if it is there. Unless set, `OTEL_TRACES_SAMPLER` and `OTEL_TRACES_SAMPLER_ARG` say; without these, all are.
    pub fn sampling(mut self, share: f64) -> Self {
        self.sampled = Some(share.clamp(0.0, 1.0));
        self
    }

    /// Sets how logs are written: as text, unless set.
    pub fn logs(mut self, logs: Logs) -> Self {
        self.logs = logs;
        self
    }

    /// Sets which logs are written unless `RUST_LOG` says, by target and level: `"info,annals=debug"`. Without either,
    /// `info`. It does not concern traces, which have all spans of the level `info`.
    pub fn filter(mut self, filter: impl Into<String>) -> Self {
        self.filter = Some(filter.into());
        self
    }

    /// Sets where logs go: to the standard error stream, unless set.
    pub fn writer<W>(mut self, writer: W) -> Self
    where
        W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
    {
        self.writer = BoxMakeWriter::new(writer);
        self
    }

    /// Starts logs and traces, for the whole program. Keep what it returns to the program's end.
    ///
    /// Spans are exported in batches by a thread of their own: a collector that is down or slow holds nobody up, and
    /// spans are dropped then. `OTEL_BSP_SCHEDULE_DELAY`, `OTEL_BSP_MAX_QUEUE_SIZE` and `OTEL_BSP_MAX_EXPORT_BATCH_SIZE` set
    /// the figures.
    ///
    /// # Errors
    /// If the program has a subscriber of `tracing` already, the filter or the endpoint cannot be read, or the endpoint is
    /// `https://`.
    pub fn start(self) -> Result<Telemetry, TelemetryError> {
        let provider = self.provider()?;
        let lines = match self.logs {
            Logs::Off => None,
            how => Some((targets(self.filter)?, LogLayer::new(how, self.writer))),
        };
        // One by one, and not as options of layers: those are not told who dispatches to them.
        let registry = tracing_subscriber::registry();
        let started = match (&provider, lines) {
            (Some(to), Some(lines)) => registry.with(spans(to)).with(written(lines)).try_init(),
            (Some(to), None) => registry.with(spans(to)).try_init(),
            (None, Some(lines)) => registry.with(written(lines)).try_init(),
            (None, None) => Ok(()),
        };
        started.map_err(TelemetryError::Subscriber)?;
        if let Some(provider) = &provider {
            opentelemetry::global::set_tracer_provider(provider.clone());
        }
        Ok(Telemetry { provider })
    }

    /// What exports spans, if they are to be exported.
    fn provider(&self) -> Result<Option<SdkTracerProvider>, TelemetryError> {
        let var = |name: &str| env::var(name).ok().filter(|value| !value.is_empty());
        let known = var(TRACES_ENDPOINT).or_else(|| var(ENDPOINT));
        let Some(endpoint) = self.endpoint.clone().or(known) else { return Ok(None) };
        if endpoint.starts_with("https:") {
            return Err(TelemetryError::Encrypted { endpoint });
        }
        let mut exporter = SpanExporter::builder().with_http();
        if let Some(base) = &self.endpoint {
            // Of a variable, the exporter makes the URL itself.
            exporter = exporter.with_endpoint(format!("{}/v1/traces", base.trim_end_matches('/')));
        }
        let exporter = exporter.build().map_err(TelemetryError::Exporter)?;
        let mut resource = Resource::builder();
        // What operators say counts.
        if var("OTEL_SERVICE_NAME").is_none() {
            resource = resource.with_service_name(self.service.clone());
        }
        if let Some(version) = &self.version {
            let version = opentelemetry::KeyValue::new("service.version", version.clone());
            resource = resource.with_attribute(version);
        }
        let mut provider = SdkTracerProvider::builder()
            .with_resource(resource.build())
            .with_batch_exporter(exporter);
        if let Some(share) = self.sampled {
            let sampler = Sampler::ParentBased(Box::new(Sampler::TraceIdRatioBased(share)));
            provider = provider.with_sampler(sampler);
        }
        Ok(Some(provider.build()))
    }
}

/// Exports spans, whatever lines are wanted.
fn spans<S>(provider: &SdkTracerProvider) -> impl Layer<S> + use<S>
where
    S: Subscriber + for<'span> LookupSpan<'span>,
{
    let layer = tracing_opentelemetry::layer().with_tracer(provider.tracer("annals"));
    layer.with_filter(LevelFilter::INFO)
}

/// Writes lines. The fields of spans are written with the lines inside them, whatever lines are wanted.
fn written<S>((wanted, lines): (Targets, LogLayer)) -> impl Layer<S>
where
    S: Subscriber + for<'span> LookupSpan<'span>,
{
    lines.with_filter(filter_fn(move |metadata: &Metadata<'_>| {
        let (target, level) = (metadata.target(), metadata.level());
        (metadata.is_span() && *level <= Level::INFO) || wanted.would_enable(target, level)
    }))
}

/// Which lines are written.
fn targets(given: Option<String>) -> Result<Targets, TelemetryError> {
    let told = env::var("RUST_LOG").ok().filter(|value| !value.is_empty());
    // What operators say counts.
    let Some(filter) = told.or(given) else { return Ok(Targets::new().with_default(Level::INFO)) };
    filter.parse().map_err(|source| TelemetryError::Filter { filter, source })
}

/// Logs and traces that are under way. Dropped at the end of the program, it exports what is not exported yet, which
/// takes as long as the collector does, and five seconds at most.
#[derive(Debug)]
#[must_use = "dropped, it exports no more spans"]
pub struct Telemetry {
    provider: Option<SdkTracerProvider>,
}

impl Telemetry {
    /// Exports what has ended by now, and waits for it. It blocks the thread.
    pub fn flush(&self) {
        if let Some(provider) = &self.provider
            && let Err(error) = provider.force_flush()
        {
            tracing::warn!(%error, "spans were not exported");
        }
    }
}

impl Drop for Telemetry {
    fn drop(&mut self) {
        if let Some(provider) = &self.provider
            && let Err(error) = provider.shutdown()
        {
            tracing::warn!(%error, "the last spans were not exported");
        }
    }
}
