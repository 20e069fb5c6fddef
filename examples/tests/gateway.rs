//! Read models through the gateway: rows, conditions, moments, freshness and live updates.
#![allow(clippy::unwrap_used)]

mod support;

use std::time::Duration;

use annals::{
    Aggregate, Apply, Change, Command, Event, EventStore, Handle, Project, QueryCache, ReadModel,
    Recorded, Worker, bus::Bus, gateway::Gateway,
};
use axum::{
    Router,
    body::{Body, BodyDataStream},
};
use futures::StreamExt;
use http::{Request, StatusCode};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use support::Database;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt;

#[derive(Event, Serialize, Deserialize)]
enum AccountEvent {
    Opened { owner: String },
    Deposited { amount: i64 },
}

#[derive(Aggregate, Default)]
#[aggregate(category = "account", event = AccountEvent)]
struct Account {
    is_open: bool,
}

impl Apply<AccountEvent> for Account {
    fn apply(&mut self, event: &AccountEvent) {
        self.is_open |= matches!(event, AccountEvent::Opened { .. });
    }
}

#[derive(Command, Serialize, Deserialize, Clone, JsonSchema)]
#[command(aggregate = Account)]
struct Deposit {
    #[command(id)]
    account: String,
    owner: String,
    amount: i64,
}

impl Handle<Deposit> for Account {
    fn handle(&self, command: Deposit) -> Result<Vec<AccountEvent>, Self::Error> {
        let Deposit { owner, amount, .. } = command;
        let mut events = vec![AccountEvent::Deposited { amount }];
        if !self.is_open {
            events.insert(0, AccountEvent::Opened { owner });
        }
        Ok(events)
    }
}

#[derive(ReadModel, Clone, Serialize, JsonSchema)]
#[read_model(table = "account_overview", from(Account), history)]
struct AccountOverview {
    #[read_model(key)]
    account: String,
    owner: String,
    balance: i64,
}

impl Project<AccountEvent> for AccountOverview {
    fn project(row: Option<Self>, event: &Recorded<AccountEvent>) -> Change<Self> {
        match (&event.event, row) {
            (AccountEvent::Opened { owner }, _) => Change::Set(Self {
                account: event.stream.key().to_owned(),
                owner: owner.clone(),
                balance: 0,
            }),
            (AccountEvent::Deposited { amount }, Some(row)) => {
                Change::Set(Self { balance: row.balance + amount, ..row })
            }
            (_, None) => Change::Keep,
        }
    }
}

/// A gateway to a database of the test's own, with a worker.
struct Api {
    router: Router,
    stop: CancellationToken,
    worker: JoinHandle<()>,
    database: Database,
}

impl Api {
    async fn new() -> Self {
        Self::with(|_, gateway| gateway).await
    }

    async fn with(set: impl FnOnce(&EventStore, Gateway) -> Gateway) -> Self {
        let database = Database::create().await;
        let store = EventStore::connect(&database.url()).await.unwrap();
        let stop = CancellationToken::new();
        let worker = Worker::new(&store).projection::<AccountOverview>();
        let until = stop.clone();
        let worker = tokio::spawn(async move { worker.run_until(until).await.unwrap() });
        let gateway = Gateway::new(&store, Bus::new(&store))
            .command::<Deposit>("/accounts/{account}/deposits")
            .read_model::<AccountOverview>("/overview");
        let router = set(&store, gateway).router();
        Self { router, stop, worker, database }
    }

    async fn end(self) {
        self.stop.cancel();
        self.worker.await.unwrap();
        drop(self.database);
    }

    async fn send(&self, request: Request<Body>) -> (StatusCode, Value) {
        let response = self.router.clone().oneshot(request).await.unwrap();
        let status = response.status();
        let bytes = axum::body::to_bytes(response.into_body(), usize::MAX).await.unwrap();
        (status, serde_json::from_slice(&bytes).unwrap_or(Value::Null))
    }

    async fn get(&self, path: &str) -> (u16, Value) {
        let (status, body) = self.send(Request::get(path).body(Body::empty()).unwrap()).await;
        (status.as_u16(), body)
    }

    /// Deposits, and waits until the overview shows it. Returns the position.
    async fn deposit(&self, account: &str, owner: &str, amount: i64) -> i64 {
        let body = json!({ "owner": owner, "amount": amount }).to_string();
        let request = Request::post(format!("/accounts/{account}/deposits"))
            .header("prefer", "wait=30")
            .body(Body::from(body));
        let (status, answer) = self.send(request.unwrap()).await;
        assert!(status.is_success(), "{answer}");
        assert_eq!(answer["visible"], true);
        answer["position"].as_i64().unwrap()
    }

    async fn events(&self, path: &str, last: Option<i64>) -> Events {
        let mut request = Request::get(path).header("accept", "text/event-stream");
        if let Some(last) = last {
            request = request.header("last-event-id", last.to_string());
        }
        let response =
            self.router.clone().oneshot(request.body(Body::empty()).unwrap()).await.unwrap();
        assert_eq!(response.status(), StatusCode::OK);
        assert_eq!(response.headers()["content-type"], "text/event-stream");
        Events { body: response.into_body().into_data_stream(), text: String::new() }
    }
}

/// Server-sent events, as they come.
struct Events {
    body: BodyDataStream,
    text: String,
}

impl Events {
    /// The next event: its id and its data.
    async fn next(&mut self) -> (i64, Value) {
        let next = async {
            loop {
                if let Some(end) = self.text.find("\n\n") {
                    let event: String = self.text.drain(..end + 2).collect();
                    let field = |name: &str| {
                        event.lines().find_map(|line| line.strip_prefix(name)).map(str::trim)
                    };
                    // What has no data keeps the connection alive.
                    let (Some(id), Some(data)) = (field("id:"), field("data:")) else { continue };
                    return (id.parse().unwrap(), serde_json::from_str(data).unwrap());
                }
                let bytes = self.body.next().await.unwrap().unwrap();
                self.text.push_str(std::str::from_utf8(&bytes).unwrap());
            }
        };
        tokio::time::timeout(Duration::from_secs(30), next).await.expect("an event")
    }
}

fn row(account: &str, owner: &str, balance: i64) -> Value {
    json!({ "account": account, "owner": owner, "balance": balance })
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_are_shown_as_they_are_and_as_they_were() {
    let api = Api::new().await;
    let first = api.deposit("a", "ada", 5).await;
    api.deposit("a", "ada", 2).await;
    assert_eq!(api.get("/overview/a").await, (200, row("a", "ada", 7)));
    let then = format!("/overview/a?as_of=position:{first}");
    assert_eq!(api.get(&then).await, (200, row("a", "ada", 5)));
    assert_eq!(api.get("/overview/b").await.0, 404);
    assert_eq!(api.get("/overview/a?as_of=position:0").await.0, 404);
    assert_eq!(api.get("/overview/a?as_of=2999-01-01T00:00:00Z").await.0, 400);
    // It is not inline, so it cannot be strongly consistent.
    assert_eq!(api.get("/overview/a?consistency=strong").await.0, 400);
    let fresh = format!("/overview/a?at_least={}", first + 1);
    assert_eq!(api.get(&fresh).await.0, 200);
    assert_eq!(api.get("/overview/a?at_least=9999").await.0, 503);
    api.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_are_found_by_columns_and_read_page_by_page() {
    let api = Api::new().await;
    for (account, owner, amount) in [("a", "ada", 5), ("b", "bob", 5), ("c", "ada", 6)] {
        api.deposit(account, owner, amount).await;
    }
    let (a, b, c) = (row("a", "ada", 5), row("b", "bob", 5), row("c", "ada", 6));
    let rows = |rows: &[&Value], next: Option<&str>| json!({ "rows": rows, "next": next });
    for (path, expected) in [
        ("/overview", rows(&[&a, &b, &c], None)),
        ("/overview?owner=ada", rows(&[&a, &c], None)),
        ("/overview?owner=ada&balance=6", rows(&[&c], None)),
        ("/overview?limit=2", rows(&[&a, &b], Some("b"))),
        ("/overview?limit=2&after=b", rows(&[&c], None)),
        ("/overview?owner=ada&after=a&as_of=position:6", rows(&[&c], None)),
        ("/overview?owner=x%27%20or%20true%20--", rows(&[], None)),
    ] {
        assert_eq!(api.get(path).await, (200, expected), "{path}");
    }
    for path in [
        "/overview?colour=red",
        "/overview?balance=much",
        "/overview?limit=0",
        "/overview?limit=9&limit=9",
    ] {
        let (status, problem) = api.get(path).await;
        assert_eq!(status, 400, "{path}: {problem}");
    }
    let (_, problem) = api.get("/overview?colour=red").await;
    let detail = problem["detail"].as_str().unwrap();
    assert!(detail.contains("account, owner, balance"), "{detail}");
    api.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn changes_arrive_as_they_happen() {
    let api = Api::new().await;
    let first = api.deposit("a", "ada", 5).await;
    let mut one = api.events("/overview/a", None).await;
    assert_eq!(one.next().await.1, row("a", "ada", 5));
    let mut all = api.events("/overview", Some(first)).await;
    api.deposit("b", "bob", 1).await;
    let second = api.deposit("a", "ada", 2).await;
    assert_eq!(one.next().await.1, row("a", "ada", 7));

    // Together or one after the other, each change comes once.
    let (mut seen, mut at) = (Vec::new(), first);
    while at < second {
        let (id, changes) = all.next().await;
        assert!(id > at, "{id} after {at}");
        at = id;
        seen.extend(changes.as_array().unwrap().iter().cloned());
    }
    seen.sort_by_key(|change| change["after"]["account"].as_str().map(str::to_owned));
    let changed = json!({ "before": row("a", "ada", 5), "after": row("a", "ada", 7) });
    let begun = json!({ "before": null, "after": row("b", "bob", 1) });
    assert_eq!(seen, [changed, begun]);
    api.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn queries_are_answered_from_a_cache_and_writes_are_read_all_the_same() {
    let mut caches = Vec::new();
    let api = Api::with(|store, gateway| {
        let cache = QueryCache::new(store).unwrap();
        caches.push(cache.clone());
        gateway.query_cache(cache)
    })
    .await;
    let statistics = || caches[0].statistics();
    let first = api.deposit("ada", "Ada", 10).await;
    for question in
        ["/overview?owner=Ada", "/overview/ada", &format!("/overview/ada?as_of=position:{first}")]
    {
        let (hits, misses) = (statistics().hits, statistics().misses);
        let (status, answer) = api.get(question).await;
        assert_eq!(status, 200, "{answer}");
        // Without a commit in between, the same, and without the database.
        assert_eq!(api.get(question).await, (200, answer), "{question}");
        assert_eq!((statistics().hits, statistics().misses), (hits + 1, misses + 1), "{question}");
    }
    let balance = async |question: &str| api.get(question).await.1["balance"].clone();
    for amount in 1..=20 {
        let written = api.deposit("ada", "Ada", 1).await;
        let read = balance(&format!("/overview/ada?at_least={written}")).await;
        assert_eq!(read, 10 + amount, "what was written is read");
        assert_eq!(
            balance(&format!("/overview/ada?as_of=position:{first}")).await,
            10,
            "and what was stays"
        );
    }
    api.end().await;
}
