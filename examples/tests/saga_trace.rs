//! One trace from the HTTP request to the compensation of a saga that it began.
#![allow(clippy::unwrap_used)]

mod support;

use annals::{EventQuery, EventStore, StreamId, Worker, bus::Bus, gateway::Gateway};
use axum::body::Body;
use futures::TryStreamExt;
use http::Request;
use opentelemetry::trace::{Status, TracerProvider};
use opentelemetry_sdk::trace::{InMemorySpanExporter, SdkTracerProvider, SpanData};
use support::{
    Database,
    trip::{Booking, RequestTrip, Services, is_compensated},
};
use tokio_util::sync::CancellationToken;
use tower::ServiceExt;
use tracing_subscriber::{Layer, filter::LevelFilter, layer::SubscriberExt};

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";

fn text(span: &SpanData, attribute: &str) -> String {
    let found = span.attributes.iter().find(|pair| pair.key.as_str() == attribute);
    found.map(|pair| pair.value.to_string()).unwrap_or_default()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_compensation_is_in_the_trace_of_the_request_that_began_the_saga() {
    let exporter = InMemorySpanExporter::default();
    let provider = SdkTracerProvider::builder().with_simple_exporter(exporter.clone()).build();
    let layer = tracing_opentelemetry::layer().with_tracer(provider.tracer("annals"));
    let layer = layer.with_filter(LevelFilter::INFO);
    tracing::subscriber::set_global_default(tracing_subscriber::registry().with(layer)).unwrap();

    let database = Database::create().await;
    let store = EventStore::connect(&database.url()).await.unwrap();
    let stop = CancellationToken::new();
    let worker = Worker::new(&store).saga::<Booking>(Services(store.clone()));
    let worker = tokio::spawn(worker.run_until(stop.clone()));
    let begun = async {
        while annals::control::status(&store).await.unwrap().is_empty() {
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(60), begun).await.expect("it has begun");

    let router = Gateway::new(&store, Bus::new(&store)).command::<RequestTrip>("/trips").router();
    let request = Request::post("/trips")
        .header("traceparent", format!("00-{TRACE}-00f067aa0ba902b7-01"))
        .header("x-request-id", "request-7")
        .body(Body::from(r#"{"trip": "one"}"#));
    let response = router.oneshot(request.unwrap()).await.unwrap();
    assert!(response.status().is_success());
    drop(response);
    is_compensated(&store, "one").await;
    stop.cancel();
    worker.await.unwrap().unwrap();

    let spans = exporter.get_finished_spans().unwrap();
    let of_trace: Vec<_> =
        spans.iter().filter(|span| span.span_context.trace_id().to_string() == TRACE).collect();
    let all = |name: &str| -> Vec<&SpanData> {
        of_trace.iter().copied().filter(|span| span.name == name).collect()
    };
    let (command, steps, undone) = (all("command"), all("saga step"), all("saga compensation"));
    let outcomes: Vec<_> =
        steps.iter().map(|step| (text(step, "step"), text(step, "outcome"))).collect();
    let pair = |step: &str, outcome: &str| (step.to_owned(), outcome.to_owned());
    assert_eq!(outcomes, [pair("flight", "done"), pair("hotel", "refused")]);
    let [undone] = undone[..] else { panic!("{undone:?}") };
    assert_eq!([text(undone, "step"), text(undone, "key")], ["flight", "one"].map(str::to_owned));
    assert_eq!(text(undone, "correlation_id"), "request-7");
    assert_eq!(undone.status, Status::Unset);
    // All of them hang on the command that the request brought.
    assert_eq!(command.len(), 1);
    for step in steps.iter().chain([&undone]) {
        assert_eq!(step.parent_span_id, command[0].span_context.span_id());
    }
    // What a step appends is a part of it, and its events say so to whoever hears of them.
    let appended = all("append");
    let cancelled = appended.iter().find(|span| {
        span.parent_span_id == undone.span_context.span_id()
            && text(span, "stream") == "seat-flight"
    });
    assert!(cancelled.is_some(), "{appended:?}");
    let stream = StreamId::new("seat", "flight").unwrap();
    let seat: Vec<_> = store.read(EventQuery::stream(&stream)).try_collect().await.unwrap();
    let parent = seat.last().unwrap().metadata.traceparent.clone().unwrap();
    assert_eq!(parent, format!("00-{TRACE}-{}-01", undone.span_context.span_id()));
    assert_eq!(seat.last().unwrap().metadata.correlation_id.as_deref(), Some("request-7"));
    let turns: Vec<_> = all("saga turn").iter().map(|turn| text(turn, "status")).collect();
    assert_eq!(turns, ["running", "compensating", "compensated"]);
}
