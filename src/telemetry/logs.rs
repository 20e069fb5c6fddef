//! Logs with ids: each line bears the fields of the spans that it is written in, and the trace that these belong to. So
//! a line leads to its trace, and a stream, an event or a correlation id leads to all lines about it.

use std::{fmt, io::Write, sync::OnceLock};

use chrono::{DateTime, SecondsFormat, Utc};
use opentelemetry::trace::TraceContextExt;
use serde_json::{Map, Value};
use tracing::{
    Dispatch, Event, Id, Subscriber,
    dispatcher::WeakDispatch,
    field::{Field, Visit},
    span::{Attributes, Record},
};
use tracing_opentelemetry::get_otel_context;
use tracing_subscriber::{
    Layer,
    fmt::{MakeWriter, writer::BoxMakeWriter},
    layer::Context,
    registry::LookupSpan,
};

/// How logs are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Logs {
    /// A line each, for people: time, level, where it comes from, what it says, then the fields as `name=value`.
    #[default]
    Text,
    /// A JSON object on a line each, for machines: `timestamp`, `level`, `target`, `message`, `span`, `trace_id`, `span_id`,
    /// and the fields under their names.
    Json,
    /// Not at all.
    Off,
}

/// Writes events as lines.
pub(super) struct LogLayer {
    logs: Logs,
    writer: BoxMakeWriter,
    /// Where the traces of spans are known.
    dispatch: OnceLock<WeakDispatch>,
}

impl LogLayer {
    pub(super) fn new(logs: Logs, writer: BoxMakeWriter) -> Self {
        Self { logs, writer, dispatch: OnceLock::new() }
    }

    /// The trace and the span that an event belongs to, where one is recorded.
    fn trace(&self, event: &Event<'_>) -> Option<(String, String)> {
        let dispatch = self.dispatch.get()?.upgrade()?;
        let current = || dispatch.current_span().id().cloned().filter(|_| event.is_contextual());
        let id = event.parent().cloned().or_else(current)?;
        let context = get_otel_context(&id, &dispatch)?;
        let span = context.span();
        let span = span.span_context();
        span.is_valid().then(|| (span.trace_id().to_string(), span.span_id().to_string()))
    }
}

impl<S> Layer<S> for LogLayer
where
    S: Subscriber + for<'span> LookupSpan<'span>,
{
    fn on_register_dispatch(&self, dispatch: &Dispatch) {
        // It is registered once.
        drop(self.dispatch.set(dispatch.downgrade()));
    }

    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, context: Context<'_, S>) {
        let Some(span) = context.span(id) else { return };
        let mut fields = Fields::default();
        attributes.record(&mut fields);
        span.extensions_mut().insert(fields);
    }

    fn on_record(&self, id: &Id, values: &Record<'_>, context: Context<'_, S>) {
        let Some(span) = context.span(id) else { return };
        if let Some(fields) = span.extensions_mut().get_mut::<Fields>() {
            values.record(fields);
        }
    }

    fn on_event(&self, event: &Event<'_>, context: Context<'_, S>) {
        let mut line = Line::new(event);
        if let Some(scope) = context.event_scope(event) {
            // From the outside in: what is nearer counts.
            for span in scope.from_root() {
                line.span = Some(span.name());
                if let Some(fields) = span.extensions().get::<Fields>() {
                    let fields = fields.0.iter();
                    line.fields.extend(fields.map(|(name, value)| (name.clone(), value.clone())));
                }
            }
        }
        let mut own = Fields::default();
        event.record(&mut own);
        line.fields.extend(own.0);
        line.trace = self.trace(event);
        let mut text = match self.logs {
            Logs::Text => line.to_text(),
            Logs::Json => line.to_json(),
            Logs::Off => return,
        };
        text.push('\n');
        // There is nobody to tell that nothing can be told.
        drop(self.writer.make_writer_for(event.metadata()).write_all(text.as_bytes()));
    }
}

/// A line before it is written.
struct Line {
    time: DateTime<Utc>,
    level: &'static str,
    target: String,
    /// The innermost span.
    span: Option<&'static str>,
    trace: Option<(String, String)>,
    fields: Map<String, Value>,
}

impl Line {
    fn new(event: &Event<'_>) -> Self {
        let metadata = event.metadata();
        Self {
            time: Utc::now(),
            level: metadata.level().as_str(),
            target: metadata.target().to_owned(),
            span: None,
            trace: None,
            fields: Map::new(),
        }
    }

    fn time(&self) -> String {
        self.time.to_rfc3339_opts(SecondsFormat::Micros, true)
    }

    fn to_json(&self) -> String {
        let mut all = self.fields.clone();
        let mut set = |name: &str, value: &str| drop(all.insert(name.to_owned(), value.into()));
        set("timestamp", &self.time());
        set("level", self.level);
        set("target", &self.target);
        if let Some(span) = self.span {
            set("span", span);
        }
        if let Some((trace, span)) = &self.trace {
            set("trace_id", trace);
            set("span_id", span);
        }
        Value::Object(all).to_string()
    }

    fn to_text(&self) -> String {
        let message = self.fields.get("message").and_then(Value::as_str).unwrap_or_default();
        // What has several lines stays one.
        let message = message.replace('\n', "\\n");
        let mut line = format!("{} {:>5} {}: {message}", self.time(), self.level, self.target);
        let fields = self.fields.iter().filter(|(name, _)| *name != "message");
        let mut add = |name: &str, value: &str| {
            line.push_str(&format!(" {name}={value}"));
        };
        for (name, value) in fields {
            match value {
                Value::String(text) if is_plain(text) => add(name, text),
                value => add(name, &value.to_string()),
            }
        }
        if let Some((trace, _)) = &self.trace {
            add("trace_id", trace);
        }
        line
    }
}

/// True if a text needs no quotation marks.
fn is_plain(text: &str) -> bool {
    let plain = |c: char| !c.is_whitespace() && !c.is_control() && c != '"' && c != '=';
    !text.is_empty() && text.chars().all(plain)
}

/// The fields of a span or an event.
#[derive(Default)]
struct Fields(Map<String, Value>);

impl Fields {
    fn set(&mut self, field: &Field, value: impl Into<Value>) {
        let name = field.name();
        // A field that is named as a keyword is.
        self.0.insert(name.strip_prefix("r#").unwrap_or(name).to_owned(), value.into());
    }
}

impl Visit for Fields {
    fn record_f64(&mut self, field: &Field, value: f64) {
        self.set(field, value);
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.set(field, value);
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.set(field, value);
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.set(field, value);
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.set(field, value);
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.set(field, format!("{value:?}"));
    }
}
