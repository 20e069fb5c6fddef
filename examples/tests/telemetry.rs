//! Logs and traces in one line: spans arrive at a collector, and log lines bear the ids that lead to them.
#![allow(clippy::unwrap_used)]

use std::{
    io,
    sync::{Arc, Mutex},
    time::Duration,
};

use annals::{
    Aggregate, Apply, Command, Envelope, Event, EventStore, Handle, Metadata,
    bus::Bus,
    telemetry::{self, Logs},
};
use axum::{Router, body::Bytes, extract::State, http::HeaderMap, routing::post};
use opentelemetry_proto::tonic::{
    collector::trace::v1::ExportTraceServiceRequest, common::v1::any_value::Value as Any,
    trace::v1::ResourceSpans,
};
use prost::Message;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tracing_subscriber::fmt::MakeWriter;

#[derive(Event, Serialize, Deserialize)]
enum AccountEvent {
    Opened,
}

#[derive(Aggregate, Default)]
#[aggregate(category = "account", event = AccountEvent)]
struct Account;

impl Apply<AccountEvent> for Account {
    fn apply(&mut self, _: &AccountEvent) {}
}

#[derive(Command, Serialize, Clone)]
#[command(aggregate = Account)]
struct Open {
    #[command(id)]
    account: String,
}

impl Handle<Open> for Account {
    fn handle(&self, _: Open) -> Result<Vec<AccountEvent>, Self::Error> {
        tracing::info!(limit = 5, "an account is opened");
        Ok(vec![AccountEvent::Opened])
    }
}

/// What a collector has got.
#[derive(Clone, Default)]
struct Collector(Arc<Mutex<Vec<ResourceSpans>>>);

impl Collector {
    /// Begins to listen. Returns its URL.
    async fn start(&self) -> String {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let routes = Router::new().route("/v1/traces", post(collect)).with_state(self.clone());
        tokio::spawn(async move { axum::serve(listener, routes).await });
        url
    }
}

async fn collect(State(collector): State<Collector>, headers: HeaderMap, body: Bytes) -> Vec<u8> {
    assert_eq!(headers["content-type"], "application/x-protobuf");
    let request = ExportTraceServiceRequest::decode(body).unwrap();
    collector.0.lock().unwrap().extend(request.resource_spans);
    Vec::new()
}

#[derive(Clone, Default)]
struct Written(Arc<Mutex<Vec<u8>>>);

impl io::Write for Written {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl MakeWriter<'_> for Written {
    type Writer = Self;

    fn make_writer(&self) -> Self {
        self.clone()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn spans_arrive_at_a_collector_and_logs_bear_their_ids() {
    let (collector, written) = (Collector::default(), Written::default());
    let url = collector.start().await;
    let telemetry = telemetry::init("bank")
        .version("1.2.3")
        .endpoint(&url)
        .logs(Logs::Json)
        .filter("info,hyper=off")
        .writer(written.clone())
        .start()
        .unwrap();
    let again = telemetry::init("bank").start().unwrap_err();
    assert!(matches!(again, telemetry::TelemetryError::Subscriber(_)), "{again:?}");

    let bus = Bus::new(&EventStore::in_memory());
    let metadata = Metadata::new().correlation_id("request-7");
    bus.send(Envelope::new(Open { account: "ada".into() }).metadata(metadata)).await.unwrap();
    // The rest is exported at the end, which must not wait for a runtime that waits for it.
    tokio::task::spawn_blocking(move || drop(telemetry)).await.unwrap();

    let all = collector.0.lock().unwrap().clone();
    let resource = all[0].resource.as_ref().unwrap();
    let text = |value: &Any| match value {
        Any::StringValue(text) => text.clone(),
        other => format!("{other:?}"),
    };
    let attribute = |name: &str| {
        let found = resource.attributes.iter().find(|pair| pair.key == name);
        found.and_then(|pair| pair.value.as_ref()?.value.as_ref()).map(text).unwrap_or_default()
    };
    assert_eq!([attribute("service.name"), attribute("service.version")], ["bank", "1.2.3"]);
    let spans = all.iter().flat_map(|of| &of.scope_spans).flat_map(|of| &of.spans);
    let spans: Vec<_> = spans.collect();
    let named = |name: &str| {
        let names: Vec<_> = spans.iter().map(|span| &span.name).collect();
        let found = spans.iter().find(|span| span.name == name);
        *found.unwrap_or_else(|| panic!("no {name:?} among {names:?}"))
    };
    let (command, append) = (named("command"), named("append"));
    assert_eq!(append.parent_span_id, command.span_id);
    assert_eq!(append.trace_id, command.trace_id);

    let written = String::from_utf8(written.0.lock().unwrap().clone()).unwrap();
    let lines: Vec<Value> =
        written.lines().map(|line| serde_json::from_str(line).expect(line)).collect();
    let line = lines.iter().find(|line| line["message"] == "an account is opened");
    let line = line.unwrap_or_else(|| panic!("{written}"));
    let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    for (field, expected) in [
        ("level", Value::from("INFO")),
        ("target", "telemetry".into()),
        ("span", "command".into()),
        ("command", "Open".into()),
        ("stream", "account-ada".into()),
        ("correlation_id", "request-7".into()),
        ("limit", 5.into()),
        ("trace_id", hex(&command.trace_id).into()),
        ("span_id", hex(&command.span_id).into()),
    ] {
        assert_eq!(line[field], expected, "{field} of {line}");
    }
    let time = line["timestamp"].as_str().unwrap();
    let age = chrono::Utc::now() - time.parse::<chrono::DateTime<chrono::Utc>>().unwrap();
    assert!(age.to_std().unwrap() < Duration::from_secs(300), "{time}");
}

#[test]
fn what_cannot_work_is_refused_at_once() {
    let error = telemetry::init("bank").endpoint("https://collector").start().unwrap_err();
    assert!(error.to_string().contains("https://collector"), "{error}");
    let error = telemetry::init("bank").filter("annals=loud").start().unwrap_err();
    assert!(error.to_string().contains("annals=loud"), "{error}");
}
