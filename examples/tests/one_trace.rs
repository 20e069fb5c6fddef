//! One trace, from the HTTP request over command, log and Kafka to the rows of the read model.
#![allow(clippy::unwrap_used)]

mod support;

use std::time::Duration;

use annals::{
    Aggregate, Apply, Change, Command, Event, EventStore, Handle, Project, ReadModel, Recorded,
    Worker, bus::Bus, gateway::Gateway, kafka::Publisher,
};
use axum::body::Body;
use futures::TryStreamExt;
use http::Request;
use opentelemetry::trace::TracerProvider;
use opentelemetry_sdk::trace::{InMemorySpanExporter, SdkTracerProvider, SpanData};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use support::Database;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt;
use tracing_subscriber::layer::SubscriberExt;

#[derive(Event, Serialize, Deserialize)]
enum AccountEvent {
    Deposited { amount: i64 },
}

#[derive(Aggregate, Default)]
#[aggregate(category = "account", event = AccountEvent)]
struct Account;

impl Apply<AccountEvent> for Account {
    fn apply(&mut self, _: &AccountEvent) {}
}

#[derive(Command, Serialize, Deserialize, Clone, JsonSchema)]
#[command(aggregate = Account)]
struct Deposit {
    #[command(id)]
    account: String,
    amount: i64,
}

impl Handle<Deposit> for Account {
    fn handle(&self, command: Deposit) -> Result<Vec<AccountEvent>, Self::Error> {
        Ok(vec![AccountEvent::Deposited { amount: command.amount }])
    }
}

#[derive(ReadModel, Clone, Serialize, JsonSchema)]
#[read_model(table = "balance", from(Account))]
struct Balance {
    #[read_model(key)]
    account: String,
    balance: i64,
}

impl Project<AccountEvent> for Balance {
    fn project(row: Option<Self>, event: &Recorded<AccountEvent>) -> Change<Self> {
        let AccountEvent::Deposited { amount } = event.event;
        let balance = row.map_or(0, |row| row.balance) + amount;
        Change::Set(Self { account: event.stream.key().to_owned(), balance })
    }
}

const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";

#[tokio::test(flavor = "multi_thread")]
async fn a_request_is_one_trace_down_to_the_row_and_the_topic() {
    let exporter = InMemorySpanExporter::default();
    let provider = SdkTracerProvider::builder().with_simple_exporter(exporter.clone()).build();
    let layer = tracing_opentelemetry::layer().with_tracer(provider.tracer("annals"));
    tracing::subscriber::set_global_default(tracing_subscriber::registry().with(layer)).unwrap();

    let database = Database::create().await;
    let store = EventStore::connect(&database.url()).await.unwrap();
    let stop = CancellationToken::new();
    let worker = Worker::new(&store).projection::<Balance>().run_until(stop.clone());
    let worker = tokio::spawn(worker);
    let brokers = std::env::var("KAFKA_BROKERS").expect("run the tests with `cargo xtask test`");
    let context = format!("trace.{}", database.name());
    let publisher = Publisher::builder(brokers, context).build(&store).unwrap();
    let mut published = publisher.progress();
    let publisher = tokio::spawn(publisher.run_until(stop.clone()));

    let router = Gateway::new(&store, Bus::new(&store))
        .command::<Deposit>("/accounts/{account}/deposits")
        .read_model::<Balance>("/balances")
        .router();
    let request = Request::post("/accounts/ada/deposits")
        .header("traceparent", format!("00-{TRACE}-b7ad6b7169203331-01"))
        .header("prefer", "wait=30")
        .body(Body::from(r#"{"amount": 5}"#));
    let response = router.oneshot(request.unwrap()).await.unwrap();
    assert!(response.status().is_success());
    drop(response);
    let is_published = published.wait_for(|progress| progress.position.get() == 1);
    tokio::time::timeout(Duration::from_secs(60), is_published).await.unwrap().unwrap();
    stop.cancel();
    worker.await.unwrap().unwrap();
    publisher.await.unwrap().unwrap();

    let spans = exporter.get_finished_spans().unwrap();
    let of_trace: Vec<_> =
        spans.iter().filter(|span| span.span_context.trace_id().to_string() == TRACE).collect();
    let named = |name: &str| -> &SpanData {
        let found = of_trace.iter().find(|span| span.name == name);
        let names: Vec<_> = of_trace.iter().map(|span| &span.name).collect();
        found.unwrap_or_else(|| panic!("no span {name:?} in the trace: {names:?}"))
    };
    let (http, command) = (named("http"), named("command"));
    let (project, publish) = (named("project event"), named("publish event"));
    assert_eq!(http.parent_span_id.to_string(), "b7ad6b7169203331");
    let parent = |span: &SpanData| span.parent_span_id;
    assert_eq!(parent(command), http.span_context.span_id());

    // What bears the trace in the log is the command's span, and what happens behind the log is part of it.
    let log: Vec<_> = store.read_all(annals::Position::START).try_collect().await.unwrap();
    let traceparent = log[0].metadata.traceparent.clone().unwrap();
    let span = command.span_context.span_id();
    assert_eq!(traceparent, format!("00-{TRACE}-{span}-01"));
    assert_eq!([parent(project), parent(publish)], [span; 2]);
}
