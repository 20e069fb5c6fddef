//! The table of metrics in the guide, what is declared, and what a program really tells are the same.
#![allow(clippy::unwrap_used)]

mod support;

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use annals::{
    Aggregate, Apply, Change, Command, Event, EventStore, Handle, Project, QueryCache,
    QueryReadModels, ReadModel, Recorded, Worker,
    breaker::{BreakerOptions, CircuitBreaker, Override},
    bus::Bus,
    gateway::Gateway,
    health::Health,
    kafka::{DeadLetters, Publisher, Source},
    metrics::{Metric, MetricKind},
    postgres::{Lease, LeaseOptions},
    telemetry::{self, Prometheus},
};
use axum::{Router, body::Body};
use http::Request;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use support::{
    Database,
    trip::{Booking, RequestTrip, Services, is_compensated},
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_util::sync::CancellationToken;
use tower::ServiceExt;

#[derive(Event, Serialize, Deserialize)]
enum AccountEvent {
    Deposited { amount: i64 },
}

#[derive(Aggregate, Default, Clone)]
#[aggregate(category = "account", event = AccountEvent, error = Nothing)]
struct Account;

impl Apply<AccountEvent> for Account {
    fn apply(&mut self, _: &AccountEvent) {}
}

#[derive(Debug, thiserror::Error)]
#[error("nothing is no deposit")]
struct Nothing;

#[derive(Command, Serialize, Deserialize, Clone, JsonSchema)]
#[command(aggregate = Account)]
struct Deposit {
    #[command(id)]
    account: String,
    amount: i64,
}

impl Handle<Deposit> for Account {
    fn handle(&self, command: Deposit) -> Result<Vec<AccountEvent>, Nothing> {
        let amount = command.amount;
        if amount == 0 { Err(Nothing) } else { Ok(vec![AccountEvent::Deposited { amount }]) }
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

/// What Prometheus reads: of each metric of ours its kind, its labels, and its samples.
#[derive(Debug, Default)]
struct Scraped {
    kinds: BTreeMap<String, String>,
    labels: BTreeMap<String, BTreeSet<String>>,
    samples: BTreeMap<String, f64>,
}

impl Scraped {
    fn of(text: &str) -> Self {
        let mut scraped = Self::default();
        for line in text.lines() {
            if let Some(declared) = line.strip_prefix("# TYPE annals_") {
                let (name, kind) = declared.split_once(' ').unwrap();
                scraped.kinds.insert(format!("annals_{name}"), kind.to_owned());
            } else if line.starts_with("annals_") {
                scraped.sample(line);
            }
        }
        scraped
    }

    fn sample(&mut self, line: &str) {
        let (key, value) = line.rsplit_once(' ').unwrap();
        self.samples.insert(key.to_owned(), value.parse().unwrap());
        let (name, labels) = key.split_once('{').unwrap_or((key, ""));
        // The samples of a histogram are under names of their own.
        let ends = ["_bucket", "_sum", "_count"].into_iter();
        let base = ends.filter_map(|end| name.strip_suffix(end)).next();
        let name = base.filter(|base| self.kinds.contains_key(*base)).unwrap_or(name);
        let names = labels.trim_end_matches('}').split("\",").filter_map(|label| {
            let (name, _) = label.split_once('=')?;
            (name != "le").then(|| name.to_owned())
        });
        self.labels.entry(name.to_owned()).or_default().extend(names);
    }

    fn value(&self, key: &str) -> f64 {
        *self.samples.get(key).unwrap_or_else(|| {
            let near: Vec<_> = key.split('{').next().into_iter().collect();
            let near: Vec<_> = self.samples.keys().filter(|k| k.starts_with(near[0])).collect();
            panic!("no {key}; there are {near:#?}")
        })
    }
}

/// `GET` over a connection of its own: the status line and the rest.
async fn get(address: std::net::SocketAddr, path: &str) -> (String, String) {
    let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    let (status, rest) = answer.split_once("\r\n").unwrap();
    (status.to_owned(), rest.to_owned())
}

async fn send(router: &Router, request: Request<Body>) -> u16 {
    router.clone().oneshot(request).await.unwrap().status().as_u16()
}

fn deposit(account: &str, body: &'static str) -> Request<Body> {
    let request = Request::post(format!("/accounts/{account}/deposits"));
    request.header("prefer", "wait=60").body(Body::from(body)).unwrap()
}

async fn until(what: &str, mut is: impl AsyncFnMut() -> bool) {
    let looking = async {
        while !is().await {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), looking).await.expect(what);
}

/// What readers wait for: an append that has registered and does not end.
async fn hold_readers_back(database: &Database) -> (tokio_postgres::Client, i32) {
    let (client, connection) =
        tokio_postgres::connect(&database.url(), tokio_postgres::NoTls).await.unwrap();
    tokio::spawn(connection);
    client.batch_execute("begin").await.unwrap();
    let sql = "select pg_advisory_xact_lock_shared(
                   (select id from annals.store)::bigint << 48
                   | (select last_value from annals.positions))";
    client.execute(sql, &[]).await.unwrap();
    let pid = client.query_one("select pg_backend_pid()", &[]).await.unwrap().get(0);
    (client, pid)
}

/// A lease that its holder does not renew is another's.
async fn lose_a_lease(store: &EventStore) {
    let options = LeaseOptions::new(Duration::from_millis(50));
    let database = store.database().unwrap();
    let take = || Lease::try_acquire(database, "nightly", options);
    let first = take().await.unwrap().unwrap();
    let mut second = None;
    until("the lease is over", async || {
        second = take().await.unwrap();
        second.is_some()
    })
    .await;
    first.renew().await.unwrap_err();
    second.unwrap().release().await.unwrap();
}

/// Everything that has metrics, at work.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_told_is_what_is_declared_and_what_the_guide_says() {
    let prometheus = Prometheus::install().unwrap();
    assert!(Prometheus::install().is_err(), "a program has one recorder");
    let database = Database::create().await;
    let patience = Duration::from_millis(50);
    let options = EventStore::options().held_back_warning(patience);
    let store = options.connect(&database.url()).await.unwrap();
    let _watching = prometheus.watch(&store);
    let stop = CancellationToken::new();
    let brokers = std::env::var("KAFKA_BROKERS").expect("run the tests with `cargo xtask test`");
    let context = format!("metrics.{}", database.name());
    let publisher = Publisher::builder(&brokers, &context).build(&store).unwrap();
    let publisher = tokio::spawn(publisher.run_until(stop.clone()));
    let topics = Source::new(&brokers, &context).unwrap();
    DeadLetters::new(&topics, "balance").unwrap();
    let worker = Worker::new(&store).projection::<Balance>().kafka(topics);
    let worker = tokio::spawn(worker.run_until(stop.clone()));
    let sagas = Worker::new(&store).saga::<Booking>(Services(store.clone()));
    let sagas = tokio::spawn(sagas.run_until(stop.clone()));
    until("the saga hears", async || {
        let all = annals::control::status(&store).await.unwrap();
        all.iter().any(|projection| projection.name == "booking")
    })
    .await;

    let router = Gateway::new(&store, Bus::new(&store))
        .command::<Deposit>("/accounts/{account}/deposits")
        .command::<RequestTrip>("/trips")
        .read_model::<Balance>("/balances")
        .query_cache(QueryCache::new(&store).unwrap())
        .router()
        .merge(prometheus.router());
    assert_eq!(send(&router, deposit("ada", r#"{"amount": 5}"#)).await, 201);
    assert_eq!(send(&router, deposit("ada", r#"{"amount": 6}"#)).await, 200);
    assert_eq!(send(&router, deposit("ada", r#"{"amount": 0}"#)).await, 422);
    let trip = Request::post("/trips").body(Body::from(r#"{"trip": "one"}"#)).unwrap();
    assert_eq!(send(&router, trip).await, 201);
    let get_row = Request::get("/balances/ada").body(Body::empty()).unwrap();
    assert_eq!(send(&router, get_row).await, 200);
    is_compensated(&store, "one").await;
    lose_a_lease(&store).await;
    let circuit = CircuitBreaker::new("mail", BreakerOptions::default());
    circuit.set_override(Some(Override::Open));
    circuit.call(async { Ok::<_, std::io::Error>(()) }, |_| true).await.unwrap_err();

    let (held, pid) = hold_readers_back(&database).await;
    store.execute(Deposit { account: "bob".into(), amount: 1 }).await.unwrap();
    let oldest = format!("annals_oldest_append_in_flight_seconds{{pid=\"{pid}\"}}");
    until("the append in flight is shown", async || {
        store.safe_position().await.unwrap();
        Scraped::of(&prometheus.render()).samples.get(&oldest).is_some_and(|age| *age > 0.05)
    })
    .await;
    held.batch_execute("rollback").await.unwrap();
    let behind = "annals_projection_lag_events{projection=\"balance\"}";
    let overdue = "annals_saga_overdue_seconds{saga=\"booking\",what=\"timer\"}";
    until("all is applied and published, and a look at the database has seen it", async || {
        let now = store.safe_position().await.unwrap();
        let samples = Scraped::of(&prometheus.render()).samples;
        let told = |beginning: &str| samples.keys().any(|sample| sample.starts_with(beginning));
        let is = |sample: &str, value: f64| samples.get(sample) == Some(&value);
        let reached = store.query::<Balance>().reached().await.unwrap();
        reached == Some(now)
            && is(behind, 0.0)
            && is("annals_projection_state{projection=\"balance\",state=\"running\"}", 1.0)
            && is("annals_lease_held{lease=\"projection:balance\"}", 1.0)
            && samples.contains_key(overdue)
            && told("annals_publisher_transactions_total")
            && told("annals_kafka_feed_lag_records")
    })
    .await;

    // Over HTTP, as Prometheus asks.
    let health = Health::new().store(&store).projections_within(&store, Duration::from_secs(3600));
    let routes = prometheus.router().merge(health.router());
    let listening = telemetry::listen("127.0.0.1:0", routes).await.unwrap();
    let (status, text) = get(listening.address(), "/metrics").await;
    assert!(status.contains("200"), "{status}");
    until("it is ready", async || {
        let (status, ready) = get(listening.address(), "/health/ready").await;
        status.contains("200") && ready.contains(r#""projections":"ok""#)
    })
    .await;
    assert!(get(listening.address(), "/health/live").await.0.contains("200"));

    let scraped = Scraped::of(&text);
    declared(&scraped);
    valued(&scraped);

    stop.cancel();
    worker.await.unwrap().unwrap();
    sagas.await.unwrap().unwrap();
    publisher.await.unwrap().unwrap();
    // Without workers the process is not ready, and says why.
    until("the worker is gone", async || {
        get(listening.address(), "/health/ready").await.1.contains("balance has no worker")
    })
    .await;
}

/// What is told is what is declared: names, kinds, labels.
fn declared(scraped: &Scraped) {
    let declared: BTreeSet<_> =
        annals::metrics::all().map(|metric| metric.name.to_owned()).collect();
    let told: BTreeSet<_> = scraped.kinds.keys().cloned().collect();
    let silent: Vec<_> = declared.difference(&told).collect();
    let secret: Vec<_> = told.difference(&declared).collect();
    assert!(
        silent.is_empty() && secret.is_empty(),
        "never told: {silent:?}; not declared: {secret:?}"
    );
    for Metric { name, kind, labels, .. } in annals::metrics::all() {
        assert_eq!(scraped.kinds[*name], kind.as_str(), "{name}");
        let expected = labels.iter().map(|label| (*label).to_owned()).collect::<BTreeSet<_>>();
        assert_eq!(scraped.labels[*name], expected, "{name}");
    }
}

/// Some of the figures, where they are known.
fn valued(scraped: &Scraped) {
    for (key, expected) in [
        ("annals_command_duration_seconds_count{command=\"Deposit\",outcome=\"done\"}", 2.0),
        ("annals_command_duration_seconds_count{command=\"Deposit\",outcome=\"rejected\"}", 1.0),
        ("annals_bulkhead_running{compartment=\"Deposit\"}", 0.0),
        ("annals_commands_in_flight", 0.0),
        ("annals_append_queue_appends", 0.0),
        ("annals_append_queue_bytes", 0.0),
        ("annals_circuit_state{circuit=\"mail\"}", 2.0),
        ("annals_circuit_refused_total{circuit=\"mail\"}", 1.0),
        ("annals_circuit_state{circuit=\"store\"}", 0.0),
        ("annals_lease_taken_total{lease=\"nightly\",from=\"free\"}", 1.0),
        ("annals_lease_taken_total{lease=\"nightly\",from=\"expired\"}", 1.0),
        ("annals_lease_lost_total{lease=\"nightly\"}", 1.0),
        ("annals_projection_events_total{projection=\"balance\"}", 3.0),
        ("annals_projection_state{projection=\"balance\",state=\"running\"}", 1.0),
        ("annals_projection_state{projection=\"balance\",state=\"stopped\"}", 0.0),
        ("annals_lease_held{lease=\"projection:balance\"}", 1.0),
        ("annals_saga_transitions_total{saga=\"booking\",status=\"compensated\"}", 1.0),
        ("annals_saga_timer_lateness_seconds_count{saga=\"booking\"}", 1.0),
        ("annals_saga_instances{saga=\"booking\",status=\"stuck\"}", 0.0),
        ("annals_watch_up", 1.0),
    ] {
        assert_eq!(scraped.value(key), expected, "{key}");
    }
    let undone = "annals_saga_step_duration_seconds_count\
                  {saga=\"booking\",step=\"flight\",direction=\"undo\",outcome=\"done\"}";
    assert_eq!(scraped.value(undone), 1.0);
    let route = "annals_http_request_duration_seconds_count\
                 {method=\"POST\",route=\"/accounts/{account}/deposits\",status=\"422\"}";
    assert_eq!(scraped.value(route), 1.0);
    // Histograms have buckets, as long as what they measure takes.
    let buckets = "annals_append_duration_seconds_bucket{outcome=\"recorded\",le=\"0.0005\"}";
    scraped.value(buckets);
    scraped.value("annals_append_batch_appends_bucket{le=\"512\"}");
}

/// A row of the guide's table.
fn row(metric: &Metric) -> String {
    let Metric { name, kind, labels, about, .. } = metric;
    let labels: Vec<_> = labels.iter().map(|label| format!("`{label}`")).collect();
    format!("| `{name}` | {} | {} | {about} |", kind.as_str(), labels.join(", "))
        .replace("|  |", "| |")
}

#[test]
fn the_guide_has_a_table_of_all_metrics() {
    let guide = include_str!("../../docs/guide/operations.md");
    let found: Vec<_> = guide.lines().filter(|line| line.starts_with("| `annals_")).collect();
    let rows: Vec<_> = annals::metrics::all().map(row).collect();
    assert!(rows == found, "the table of the guide is to be\n{}", rows.join("\n"));
}

/// All names of metrics in the expressions of a dashboard.
fn named(value: &serde_json::Value, names: &mut BTreeSet<String>) {
    match value {
        serde_json::Value::Object(fields) => {
            for (name, value) in fields {
                if let (true, Some(text)) = (name == "expr" || name == "query", value.as_str()) {
                    let is_part = |c: char| c.is_ascii_alphanumeric() || c == '_';
                    let words = text.split(|c| !is_part(c));
                    names.extend(words.filter(|w| w.starts_with("annals_")).map(str::to_owned));
                }
                named(value, names);
            }
        }
        serde_json::Value::Array(values) => values.iter().for_each(|value| named(value, names)),
        _ => {}
    }
}

#[test]
fn the_dashboard_shows_metrics_that_there_are() {
    let text = include_str!("../../docs/grafana/annals.json");
    let dashboard: serde_json::Value = serde_json::from_str(text).unwrap();
    let mut shown = BTreeSet::new();
    named(&dashboard, &mut shown);
    let mut known = BTreeSet::new();
    for Metric { name, kind, .. } in annals::metrics::all() {
        known.insert((*name).to_owned());
        if *kind == MetricKind::Histogram {
            known.extend(["_bucket", "_count", "_sum"].map(|end| format!("{name}{end}")));
        }
    }
    let unknown: Vec<_> = shown.difference(&known).collect();
    assert!(unknown.is_empty(), "{unknown:?}");
    // And all there are, in one panel or another.
    let missing: Vec<_> = annals::metrics::all()
        .filter(|metric| !shown.iter().any(|name| name.starts_with(metric.name)))
        .map(|metric| metric.name)
        .collect();
    assert!(missing.is_empty(), "no panel shows {missing:?}");
    let panels = dashboard["panels"].as_array().unwrap();
    let ids: BTreeSet<_> = panels.iter().map(|panel| panel["id"].as_u64().unwrap()).collect();
    assert_eq!(ids.len(), panels.len(), "each panel has an id of its own");
}
