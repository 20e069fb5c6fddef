//! Logs and traces in one line: spans arrive at a collector, and log lines bear the ids that lead to them.
#![allow(clippy::unwrap_used)]

mod support;

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
use serde::{Deserialize, Serialize};
use serde_json::Value;
use support::collector::{Collector, attribute, hex};
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

    let all = collector.all();
    let resource = &all[0].resource.as_ref().unwrap().attributes;
    let of_resource = ["service.name", "service.version"].map(|name| attribute(resource, name));
    assert_eq!(of_resource, ["bank", "1.2.3"]);
    let spans: Vec<_> = collector.spans().into_iter().map(|of| of.span).collect();
    let named = |name: &str| {
        let names: Vec<_> = spans.iter().map(|span| &span.name).collect();
        let found = spans.iter().find(|span| span.name == name);
        found.unwrap_or_else(|| panic!("no {name:?} among {names:?}"))
    };
    let (command, append) = (named("command"), named("append"));
    assert_eq!(append.parent_span_id, command.span_id);
    assert_eq!(append.trace_id, command.trace_id);

    let written = String::from_utf8(written.0.lock().unwrap().clone()).unwrap();
    let lines: Vec<Value> =
        written.lines().map(|line| serde_json::from_str(line).expect(line)).collect();
    let line = lines.iter().find(|line| line["message"] == "an account is opened");
    let line = line.unwrap_or_else(|| panic!("{written}"));
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
