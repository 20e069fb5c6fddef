//! One trace, from the HTTP request over command, log and Kafka to the rows of the read model.
#![allow(clippy::unwrap_used)]

mod support;

use std::{sync::OnceLock, time::Duration};

use annals::{
    Aggregate, Append, Apply, Category, Change, Command, Consistency, Event, EventStore,
    ExpectedVersion, Handle, NewEvent, Position, Project, QueryReadModels, ReadModel, Recorded,
    StreamId, Worker,
    bus::Bus,
    control::{self, FedBy},
    gateway::Gateway,
    kafka::{Publisher, Source},
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

/// The same for somebody who knows the topics and not the store.
struct Accounts;

impl Category for Accounts {
    const NAME: &'static str = "account";
    type Event = AccountEvent;
}

#[derive(ReadModel, Clone)]
#[read_model(table = "elsewhere", from(Accounts))]
struct Elsewhere {
    #[read_model(key)]
    account: String,
    balance: i64,
}

impl Project<AccountEvent> for Elsewhere {
    fn project(row: Option<Self>, event: &Recorded<AccountEvent>) -> Change<Self> {
        let AccountEvent::Deposited { amount } = event.event;
        let balance = row.map_or(0, |row| row.balance) + amount;
        Change::Set(Self { account: event.stream.key().to_owned(), balance })
    }
}

const PATIENCE: Duration = Duration::from_secs(60);

/// The spans of this program, whichever test they are of.
fn exporter() -> &'static InMemorySpanExporter {
    static EXPORTER: OnceLock<InMemorySpanExporter> = OnceLock::new();
    EXPORTER.get_or_init(|| {
        let exporter = InMemorySpanExporter::default();
        let provider = SdkTracerProvider::builder().with_simple_exporter(exporter.clone()).build();
        let layer = tracing_opentelemetry::layer().with_tracer(provider.tracer("annals"));
        let subscriber = tracing_subscriber::registry().with(layer);
        tracing::subscriber::set_global_default(subscriber).unwrap();
        exporter
    })
}

fn spans_of(trace: &str) -> Vec<SpanData> {
    let mut spans = exporter().get_finished_spans().unwrap();
    spans.retain(|span| span.span_context.trace_id().to_string() == trace);
    spans
}

/// All spans of a name; there is one at least.
fn named<'a>(spans: &'a [SpanData], name: &str) -> Vec<&'a SpanData> {
    let found: Vec<_> = spans.iter().filter(|span| span.name == name).collect();
    let names: Vec<_> = spans.iter().map(|span| &span.name).collect();
    assert!(!found.is_empty(), "no span {name:?} in the trace: {names:?}");
    found
}

fn attribute(span: &SpanData, key: &str) -> String {
    let found = span.attributes.iter().find(|attribute| attribute.key.as_str() == key);
    found.map(|attribute| attribute.value.to_string()).unwrap_or_default()
}

fn brokers() -> String {
    std::env::var("KAFKA_BROKERS").expect("run the tests with `cargo xtask test`")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_is_one_trace_down_to_the_row_and_the_topic() {
    const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
    exporter();
    let database = Database::create().await;
    let store = EventStore::connect(&database.url()).await.unwrap();
    let stop = CancellationToken::new();
    let worker = Worker::new(&store).projection::<Balance>().run_until(stop.clone());
    let worker = tokio::spawn(worker);
    let context = format!("trace.{}", database.name());
    let publisher = Publisher::builder(brokers(), context).build(&store).unwrap();
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
    tokio::time::timeout(PATIENCE, is_published).await.unwrap().unwrap();
    stop.cancel();
    worker.await.unwrap().unwrap();
    publisher.await.unwrap().unwrap();

    let spans = spans_of(TRACE);
    let one = |name| named(&spans, name)[0];
    let (http, command) = (one("http"), one("command"));
    let (project, publish) = (one("project event"), one("publish event"));
    assert_eq!(http.parent_span_id.to_string(), "b7ad6b7169203331");
    let parent = |span: &SpanData| span.parent_span_id;
    assert_eq!(parent(command), http.span_context.span_id());

    // What bears the trace in the log is the command's span, and what happens behind the log is part of it.
    let log: Vec<_> = store.read_all(Position::START).try_collect().await.unwrap();
    let traceparent = log[0].metadata.traceparent.clone().unwrap();
    let span = command.span_context.span_id();
    assert_eq!(traceparent, format!("00-{TRACE}-{span}-01"));
    assert_eq!([parent(project), parent(publish)], [span; 2]);
}

/// Also to the rows of those who know the log from its topics alone: the headers of the record bear it.
#[tokio::test(flavor = "multi_thread")]
async fn a_request_is_one_trace_through_the_broker_to_the_rows() {
    const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
    exporter();
    let (database, others) = (Database::create().await, Database::create().await);
    let store = EventStore::connect(&database.url()).await.unwrap();
    let own = EventStore::connect(&others.url()).await.unwrap();
    let stop = CancellationToken::new();
    let context = format!("trace.{}", database.name());
    let publisher = Publisher::builder(brokers(), &context).build(&store).unwrap();
    let publisher = tokio::spawn(publisher.run_until(stop.clone()));
    let source = || Source::new(brokers(), &context).unwrap();
    let worker = Worker::new(&store).projection::<Balance>().kafka(source());
    let worker = tokio::spawn(worker.run_until(stop.clone()));
    let consumer = Worker::consumer(&own, source()).projection::<Elsewhere>();
    let consumer = tokio::spawn(consumer.run_until(stop.clone()));
    let is_fed_by_kafka = || async {
        let status = control::status(&store).await.unwrap();
        let fed = |slice: &control::SliceStatus| slice.fed_by == FedBy::Kafka;
        !status.is_empty() && status.iter().all(|found| found.slices.iter().all(fed))
    };
    // It goes over from the store when something comes.
    let fed = async {
        while !is_fed_by_kafka().await {
            let event = NewEvent::of(&AccountEvent::Deposited { amount: 1 }).unwrap();
            let stream = StreamId::new("account", "another").unwrap();
            store.append(Append::to(stream, ExpectedVersion::Any, [event])).await.unwrap();
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    tokio::time::timeout(PATIENCE, fed).await.expect("Kafka feeds it");

    let router = Gateway::new(&store, Bus::new(&store))
        .command::<Deposit>("/accounts/{account}/deposits")
        .router();
    let request = Request::post("/accounts/ada/deposits")
        .header("traceparent", format!("00-{TRACE}-00f067aa0ba902b7-01"))
        .body(Body::from(r#"{"amount": 5}"#));
    let response = router.oneshot(request.unwrap()).await.unwrap();
    assert!(response.status().is_success());
    drop(response);
    let log: Vec<_> = store.read_all(Position::START).try_collect().await.unwrap();
    let event = log.iter().find(|event| event.stream.key() == "ada").unwrap();
    let there = Consistency::AtLeast(event.position, PATIENCE);
    let ada = "ada".to_owned();
    let balance = store.query::<Balance>().consistency(there).get(&ada).await.unwrap().unwrap();
    let elsewhere = own.query::<Elsewhere>().consistency(there).get(&ada).await.unwrap().unwrap();
    assert_eq!((balance.balance, elsewhere.balance), (5, 5));
    assert!(is_fed_by_kafka().await);
    stop.cancel();
    worker.await.unwrap().unwrap();
    consumer.await.unwrap().unwrap();
    publisher.await.unwrap().unwrap();

    let spans = spans_of(TRACE);
    let command = named(&spans, "command")[0];
    assert_eq!(command.parent_span_id, named(&spans, "http")[0].span_context.span_id());
    // The parent of each is what the event bears: the command's span, not that of the publisher.
    let mut projected = Vec::new();
    for span in named(&spans, "project event") {
        assert_eq!(span.parent_span_id, command.span_context.span_id());
        assert_eq!(attribute(span, "event_id"), event.id.to_string());
        projected.push(attribute(span, "projection"));
    }
    projected.sort_unstable();
    assert_eq!(projected, ["balance", "elsewhere"]);
    for span in named(&spans, "publish event") {
        assert_eq!(span.parent_span_id, command.span_context.span_id());
    }
}
