//! The travel example in four processes, whose hotel fails: the compensation is found in the trace of the request.
#![allow(clippy::unwrap_used)]

mod support;

use std::{
    net::TcpListener,
    process::{Child, Stdio},
    time::Duration,
};

use opentelemetry_proto::tonic::trace::v1::status::StatusCode;
use reqwest::Client;
use serde_json::{Value, json};
use support::{
    Database,
    collector::{Collector, Of, hex},
    example,
};

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const SERVICES: [&str; 3] = ["flight", "hotel", "car"];
/// Machines are slow when they are busy.
const PATIENCE: Duration = Duration::from_secs(120);

/// A process of the example.
struct Process {
    url: String,
    child: Child,
}

impl Process {
    fn start(role: &str, database: &Database, collector: &str, arguments: &[String]) -> Self {
        let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let child = example("travel")
            .args([role, "--attached", "--listen", &address.to_string()])
            .args(arguments)
            .env("DATABASE_URL", database.url())
            .env("TRAVEL_CLIENTS", "shop=key")
            .env("OTEL_EXPORTER_OTLP_ENDPOINT", collector)
            .env("OTEL_BSP_SCHEDULE_DELAY", "50")
            .stdin(Stdio::piped())
            .spawn()
            .unwrap();
        Self { url: format!("http://{address}"), child }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

/// Asks again and again, until there is an answer.
async fn until<T>(what: &str, mut ask: impl AsyncFnMut() -> Option<T>) -> T {
    let asking = async {
        loop {
            match ask().await {
                Some(answer) => return answer,
                None => tokio::time::sleep(Duration::from_millis(50)).await,
            }
        }
    };
    tokio::time::timeout(PATIENCE, asking).await.unwrap_or_else(|_| panic!("never: {what}"))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hotel_fails_and_the_compensation_is_in_the_trace_of_the_request() {
    let (collector, client) = (Collector::default(), Client::new());
    let collecting = collector.start().await;
    let (mut databases, mut processes, mut lines) = (Vec::new(), Vec::new(), Vec::new());
    for role in SERVICES {
        databases.push(Database::create().await);
        processes.push(Process::start(role, databases.last().unwrap(), &collecting, &[]));
        lines.extend([format!("--{role}"), processes.last().unwrap().url.clone()]);
    }
    databases.push(Database::create().await);
    processes.push(Process::start("booking", databases.last().unwrap(), &collecting, &lines));
    for process in &processes {
        until("it answers", async || {
            let health = client.get(format!("{}/health/ready", process.url)).send().await;
            health.ok().filter(|answer| answer.status().is_success())
        })
        .await;
    }
    let [_, hotel, _, booking] = &processes[..] else { panic!("four of them") };
    let faults = async |errors: f64| {
        let set = client.put(format!("{}/faults", hotel.url)).json(&json!({ "errors": errors }));
        assert!(set.send().await.unwrap().status().is_success());
    };

    faults(1.0).await;
    let id = uuid::Uuid::now_v7();
    let request = client
        .post(format!("{}/bookings", booking.url))
        .header("x-api-key", "key")
        .header("traceparent", format!("00-{TRACE}-00f067aa0ba902b7-01"))
        .json(&json!({ "booking": id, "destination": "Bergen", "travellers": 2 }));
    let answer = request.send().await.unwrap();
    assert!(answer.status().is_success(), "{answer:?}");
    let compensates =
        format!("select count(*) from annals.sagas where key = '{id}' and status = 'compensating'");
    let of_booking = databases.last().unwrap();
    until("the saga gives the hotel up", async || {
        (of_booking.count(&compensates).await == 1).then_some(())
    })
    .await;
    // Half of the hotel's answers were lost after it had reserved a room: that is undone, too.
    faults(0.0).await;
    let overview = until("the booking is cancelled", async || {
        let shown = client.get(format!("{}/bookings/{id}", booking.url));
        let shown = shown.header("x-api-key", "key").send().await.unwrap();
        let shown: Value = shown.json().await.unwrap();
        (shown["status"] == "cancelled").then_some(shown)
    })
    .await;
    assert_eq!(overview["destination"], "Bergen");

    // What the flight's service did about the compensation is exported last, or its caller's span is.
    let found =
        |spans: &[Of], is_it: &dyn Fn(&Of) -> bool| spans.iter().find(|of| is_it(of)).cloned();
    let cancelled = |of: &Of| of.span.name == "command" && of.text("command") == "Cancel";
    let undone = |of: &Of| of.span.name == "saga compensation" && of.text("step") == "flight";
    let spans = until("both are exported", async || {
        let mut spans = collector.spans();
        spans.retain(|of| hex(&of.span.trace_id) == TRACE);
        let ended = found(&spans, &|of| undone(of) && of.text("outcome") == "done").is_some()
            && found(&spans, &|of| of.service == "travel-flight" && cancelled(of)).is_some()
            && found(&spans, &|of| of.service == "travel-booking" && of.span.name == "http")
                .is_some();
        ended.then_some(spans)
    })
    .await;

    // Down from the request, by way of four processes.
    let parent = |child: &Of| found(&spans, &|of| of.span.span_id == child.span.parent_span_id);
    let path_of = |span: Of| {
        let path = std::iter::successors(Some(span), parent);
        path.map(|of| format!("{} of {}", of.span.name, of.service)).collect::<Vec<_>>()
    };
    let cancelled = found(&spans, &|of| of.service == "travel-flight" && cancelled(of)).unwrap();
    assert_eq!(
        path_of(cancelled),
        [
            "command of travel-flight",
            "http of travel-flight",
            "saga compensation of travel-booking",
            "command of travel-booking",
            "http of travel-booking",
        ]
    );
    let attempts: Vec<_> = spans
        .iter()
        .filter(|of| of.span.name == "saga step" && of.text("step") == "hotel")
        .collect();
    assert!(attempts.len() > 1, "{spans:?}");
    for attempt in attempts {
        let status = attempt.span.status.as_ref().map(|status| status.code());
        assert_eq!(
            (attempt.text("outcome").as_str(), status),
            ("failed", Some(StatusCode::Error)),
            "{attempt:?}"
        );
    }
    assert!(found(&spans, &|of| of.service == "travel-car").is_none(), "nobody asked for a car");
}
