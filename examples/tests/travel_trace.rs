//! The travel example in four processes, whose hotel fails: the compensation is found in the trace of the request.
#![allow(clippy::unwrap_used)]

mod support;

use std::{
    net::{SocketAddr, TcpListener},
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
    fn start(
        role: &str,
        address: SocketAddr,
        database: &Database,
        collector: &str,
        arguments: &[String],
    ) -> Self {
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

/// Addresses that are free, and that the system does not give to others.
fn addresses() -> Vec<SocketAddr> {
    let bind = |_| TcpListener::bind(("127.0.0.1", rand::random_range(20_000..32_000))).ok();
    // Held until there are all, so that no two are the same.
    let listeners: Vec<_> = (0..).filter_map(bind).take(SERVICES.len() + 1).collect();
    listeners.iter().map(|listener| listener.local_addr().unwrap()).collect()
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
    let addresses = addresses();
    for (role, address) in SERVICES.into_iter().zip(&addresses) {
        databases.push(Database::create().await);
        let database = databases.last().unwrap();
        processes.push(Process::start(role, *address, database, &collecting, &[]));
        lines.extend([format!("--{role}"), processes.last().unwrap().url.clone()]);
    }
    databases.push(Database::create().await);
    let (address, database) = (addresses[SERVICES.len()], databases.last().unwrap());
    processes.push(Process::start("booking", address, database, &collecting, &lines));
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
    // Down from the request, by way of four processes.
    let path_of = |spans: &[Of], span: Of| {
        let parent = |child: &Of| found(spans, &|of| of.span.span_id == child.span.parent_span_id);
        let path = std::iter::successors(Some(span), parent);
        path.map(|of| format!("{} of {}", of.span.name, of.service)).collect::<Vec<_>>()
    };
    let (path, spans) = until("all are exported", async || {
        let mut spans = collector.spans();
        spans.retain(|of| hex(&of.span.trace_id) == TRACE);
        found(&spans, &|of| undone(of) && of.text("outcome") == "done")?;
        let cancelled = found(&spans, &|of| of.service == "travel-flight" && cancelled(of))?;
        let path = path_of(&spans, cancelled);
        (path.len() == 5).then_some((path, spans))
    })
    .await;
    assert_eq!(
        path,
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
