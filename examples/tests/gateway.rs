//! Read models through the gateway: rows, conditions, moments, freshness and live updates.
#![allow(clippy::unwrap_used)]

mod support;

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use annals::{
    Aggregate, Apply, Change, Command, Event, EventStore, Handle, InlineProjections, Position,
    Project, QueryCache, QueryReadModels, ReadModel, Recorded, Worker,
    bus::Bus,
    gateway::{Access, Authenticate, Denied, Gateway, Identity},
    testkit::faults::{Link, Verdict, Way},
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
        Events::from(&self.router, path, last).await
    }
}

/// Server-sent events, as they come.
struct Events {
    body: BodyDataStream,
    text: String,
}

impl Events {
    async fn from(router: &Router, path: &str, last: Option<i64>) -> Self {
        let mut request = Request::get(path).header("accept", "text/event-stream");
        if let Some(last) = last {
            request = request.header("last-event-id", last.to_string());
        }
        let request = request.body(Body::empty()).unwrap();
        let response = router.clone().oneshot(request).await.unwrap();
        assert_eq!(response.status(), StatusCode::OK);
        assert_eq!(response.headers()["content-type"], "text/event-stream");
        Self { body: response.into_body().into_data_stream(), text: String::new() }
    }

    /// The next event: its id and its data.
    async fn next(&mut self) -> (i64, Value) {
        let (_, id, data) = self.named().await;
        (id, data)
    }

    /// The next event: its name, its id and its data.
    async fn named(&mut self) -> (String, i64, Value) {
        let next = async {
            loop {
                if let Some(end) = self.text.find("\n\n") {
                    let event: String = self.text.drain(..end + 2).collect();
                    let field = |name: &str| {
                        event.lines().find_map(|line| line.strip_prefix(name)).map(str::trim)
                    };
                    // What has no data keeps the connection alive.
                    let (Some(id), Some(data)) = (field("id:"), field("data:")) else { continue };
                    let name = field("event:").unwrap_or_default().to_owned();
                    return (name, id.parse().unwrap(), serde_json::from_str(data).unwrap());
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

/// Changes of one row, of which each begins with what the one before has left.
struct Chain {
    events: Events,
    at: i64,
    balance: i64,
}

impl Chain {
    /// Reads one event, and returns how far it has come.
    async fn follow(&mut self) -> i64 {
        let (name, id, changes) = self.events.named().await;
        assert_eq!(name, "changes");
        assert!(id > self.at, "{id} after {}", self.at);
        self.at = id;
        for change in changes.as_array().unwrap() {
            assert_eq!(change["before"]["balance"], self.balance, "a change is missing: {change}");
            self.balance = change["after"]["balance"].as_i64().unwrap();
        }
        id
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_change_is_lost_when_the_database_fails_while_clients_listen() {
    let api = Api::new().await;
    let first = api.deposit("a", "ada", 5).await;
    // The worker and those who write are not behind the link.
    let link = Link::postgres(&api.database.url()).await.unwrap();
    let store = EventStore::connect(link.url()).await.unwrap();
    let gateway = Gateway::new(&store, Bus::new(&store));
    let router = gateway.read_model::<AccountOverview>("/overview").router();
    let mut one = Events::from(&router, "/overview/a", None).await;
    assert_eq!(one.next().await.1, row("a", "ada", 5));
    let mut all = Chain {
        events: Events::from(&router, "/overview", Some(first)).await,
        at: first,
        balance: 5,
    };

    // How far the read model is can be read, and the rows cannot, for a while in which nothing else moves.
    let left = Arc::new(AtomicUsize::new(6));
    let failing = left.clone();
    link.judge(move |message| {
        let asks = message.way == Way::ToServer
            && message.bytes.first() == Some(&b'P')
            && String::from_utf8_lossy(message.bytes).contains("account_overview");
        let take = |left: usize| left.checked_sub(1);
        match asks && failing.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take).is_ok() {
            true => Verdict::Cut,
            false => Verdict::Pass,
        }
    });
    link.cut();
    let second = api.deposit("a", "ada", 2).await;
    while all.follow().await < second {}
    assert_eq!((all.balance, one.next().await.1), (7, row("a", "ada", 7)));
    assert_eq!(left.load(Ordering::Relaxed), 0);

    // Every server process of this database ends, again and again.
    let ends = format!(
        "select count(pg_terminate_backend(pid)) from pg_stat_activity where datname = '{}'",
        api.database.name()
    );
    let over = CancellationToken::new();
    let (server, until) = (support::server(), over.clone());
    let ending = tokio::spawn(async move {
        // Now and then there is time enough for a deposit, however slow the machine is.
        for pause in [15, 30, 60, 120].into_iter().cycle() {
            if until.is_cancelled() {
                break;
            }
            support::count(&server, &ends).await;
            tokio::time::sleep(Duration::from_millis(pause)).await;
        }
    });
    for number in 0..30 {
        let key = format!("k-{number}");
        loop {
            let request = Request::post("/accounts/a/deposits").header("idempotency-key", &key);
            let body = Body::from(json!({ "owner": "ada", "amount": 1 }).to_string());
            match api.send(request.body(body).unwrap()).await {
                (status, _) if status.is_success() => break,
                (status, _) => assert!(status.is_server_error(), "{status}"),
            }
            // Below the rate that one client may have.
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
    over.cancel();
    ending.await.unwrap();
    while all.balance < 37 {
        all.follow().await;
    }
    while one.next().await.1["balance"] != 37 {}
    api.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn there_are_so_many_live_streams_and_no_more() {
    let api = Api::with(|_, gateway| gateway.live_streams(2)).await;
    api.deposit("a", "ada", 5).await;
    let mut one = api.events("/overview/a", None).await;
    let all = api.events("/overview", None).await;
    for path in ["/overview", "/overview/a"] {
        let request = Request::get(path).header("accept", "text/event-stream");
        let request = request.body(Body::empty()).unwrap();
        let refused = api.router.clone().oneshot(request).await.unwrap();
        assert_eq!(refused.status(), StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(refused.headers()["content-type"], "application/problem+json");
        assert_eq!(refused.headers()["retry-after"], "1");
    }
    // Other questions, and streams that have begun, are answered.
    assert_eq!(api.get("/overview/a").await.0, 200);
    assert_eq!(one.next().await.1, row("a", "ada", 5));
    drop(all);
    let mut another = api.events("/overview/a", None).await;
    assert_eq!(another.next().await.1, row("a", "ada", 5));
    api.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_comes_back_is_told_page_by_page_or_to_read_anew() {
    let mut stores = Vec::new();
    let api = Api::with(|store, gateway| {
        stores.push(store.clone());
        gateway
    })
    .await;
    let deposit = Deposit { account: "a".to_owned(), owner: "ada".to_owned(), amount: 1 };
    let first = api.deposit("a", "ada", 5).await;
    let all = (0..2600).map(|_| deposit.clone());
    assert!(stores[0].execute_all(all).await.unwrap().iter().all(Result::is_ok));
    let last = api.deposit("a", "ada", 1).await;

    let mut chain =
        Chain { events: api.events("/overview", Some(first)).await, at: first, balance: 5 };
    let mut pages = vec![first];
    while *pages.last().unwrap() < last {
        pages.push(chain.follow().await);
    }
    assert_eq!(chain.balance, 2606);
    assert!(pages.windows(2).all(|page| page[1] - page[0] <= 1000), "{pages:?}");

    let all = (0..500).map(|_| deposit.clone());
    assert!(stores[0].execute_all(all).await.unwrap().iter().all(Result::is_ok));
    let last = api.deposit("a", "ada", 1).await;
    let gateway = Gateway::new(&stores[0], Bus::new(&stores[0])).live_catch_up(3000);
    let router = gateway.read_model::<AccountOverview>("/overview").router();
    let mut late = Events::from(&router, "/overview", Some(first)).await;
    let (name, at, told) = late.named().await;
    assert_eq!((name.as_str(), at), ("reload", last), "{told}");
    api.deposit("a", "ada", 1).await;
    let mut chain = Chain { events: late, at, balance: 3107 };
    chain.follow().await;
    assert_eq!(chain.balance, 3108);

    let request = Request::get("/overview").header("accept", "text/event-stream");
    let request = request.header("last-event-id", "yesterday").body(Body::empty()).unwrap();
    assert_eq!(api.send(request).await.0, StatusCode::BAD_REQUEST);
    api.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_first_change_of_all_is_told_to_who_listens_before() {
    let mut stores = Vec::new();
    let api = Api::with(|store, gateway| {
        stores.push(store.clone());
        gateway
    })
    .await;
    // The tables are there.
    let accounts = || stores[0].query::<AccountOverview>();
    accounts().wait_for(Position::START, Duration::from_secs(60)).await.unwrap();
    let mut all = api.events("/overview", None).await;
    let later = async {
        // Until the stream has begun, what happens is before it.
        tokio::time::sleep(Duration::from_secs(2)).await;
        api.deposit("a", "ada", 5).await;
    };
    let ((_, changes), ()) = tokio::join!(all.next(), later);
    assert_eq!(changes[0]["before"], Value::Null, "{changes}");
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

/// A read model in the transaction of the command, so there is nothing to wait for.
#[tokio::test(flavor = "multi_thread")]
async fn an_inline_read_model_answers_with_strong_consistency() {
    let database = Database::create().await;
    let store = EventStore::connect(&database.url()).await.unwrap();
    let store = store.with_inline::<AccountOverview>().await.unwrap();
    let router = Gateway::new(&store, Bus::new(&store))
        .command::<Deposit>("/accounts/{account}/deposits")
        .read_model::<AccountOverview>("/overview")
        .router();
    let send = async |request: Request<Body>| {
        let response = router.clone().oneshot(request).await.unwrap();
        let status = response.status().as_u16();
        let bytes = axum::body::to_bytes(response.into_body(), usize::MAX).await.unwrap();
        (status, serde_json::from_slice::<Value>(&bytes).unwrap())
    };
    for number in 1..=20 {
        let body = json!({ "owner": "ada", "amount": 1 }).to_string();
        let request = Request::post("/accounts/a/deposits").body(Body::from(body)).unwrap();
        assert!(matches!(send(request).await, (200 | 201, _)));
        for path in ["/overview/a?consistency=strong", "/overview?consistency=strong"] {
            let (status, answer) = send(Request::get(path).body(Body::empty()).unwrap()).await;
            assert_eq!(status, 200, "{answer}");
            let shown = answer.get("rows").map_or(&answer, |rows| &rows[0]);
            assert_eq!(shown, &row("a", "ada", number), "{path}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_is_waited_for_until_it_is_fresh_enough() {
    let api = Api::new().await;
    let first = api.deposit("a", "ada", 5).await;
    let path = format!("/overview/a?at_least={}", first + 1);
    let request = Request::get(&path).header("prefer", "wait=30").body(Body::empty()).unwrap();
    let asked = tokio::spawn(api.router.clone().oneshot(request));
    // Without that position, it is not answered.
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert!(!asked.is_finished());
    assert_eq!(api.deposit("a", "ada", 2).await, first + 1);
    let answer = asked.await.unwrap().unwrap();
    assert_eq!(answer.status(), StatusCode::OK);
    let bytes = axum::body::to_bytes(answer.into_body(), usize::MAX).await.unwrap();
    assert_eq!(serde_json::from_slice::<Value>(&bytes).unwrap(), row("a", "ada", 7));
    api.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_are_shown_as_of_a_time() {
    let api = Api::new().await;
    api.deposit("a", "ada", 5).await;
    // Read on the clock that events are stamped with.
    let clock = "select (extract(epoch from clock_timestamp()) * 1000000)::bigint";
    let micros = api.database.count(clock).await;
    api.deposit("a", "ada", 2).await;
    api.deposit("b", "bob", 1).await;
    let time = chrono::DateTime::from_timestamp_micros(micros).unwrap();
    let time = time.to_rfc3339_opts(chrono::SecondsFormat::Micros, true);
    let one = api.get(&format!("/overview/a?as_of={time}")).await;
    assert_eq!(one, (200, row("a", "ada", 5)));
    let all = api.get(&format!("/overview?as_of={time}")).await;
    assert_eq!(all, (200, json!({ "rows": [row("a", "ada", 5)], "next": null })));
    assert_eq!(api.get("/overview/a").await, (200, row("a", "ada", 7)));
    api.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_that_is_not_shown_in_time_says_so_and_is_done() {
    let api = Api::new().await;
    api.deposit("a", "ada", 5).await;
    let Api { router, stop, worker, database } = api;
    stop.cancel();
    worker.await.unwrap();
    let body = json!({ "owner": "ada", "amount": 2 }).to_string();
    let request = Request::post("/accounts/a/deposits").header("prefer", "wait=1");
    let request = request.body(Body::from(body)).unwrap();
    let answer = router.clone().oneshot(request).await.unwrap();
    assert_eq!(answer.status(), StatusCode::OK);
    assert!(!answer.headers().contains_key("preference-applied"));
    let bytes = axum::body::to_bytes(answer.into_body(), usize::MAX).await.unwrap();
    let answer: Value = serde_json::from_slice(&bytes).unwrap();
    assert_eq!((&answer["visible"], &answer["position"]), (&json!(false), &json!(3)));
    assert_eq!(database.count("select count(*) from annals.events").await, 3);
}

/// Whoever says who they are is believed; only root sees all accounts, and others theirs.
struct Owners;

#[annals::async_trait]
impl Authenticate for Owners {
    async fn authenticate(&self, parts: &http::request::Parts) -> Result<Identity, Denied> {
        match parts.headers.get("x-name").and_then(|name| name.to_str().ok()) {
            Some(name) => Ok(Identity::new(name)),
            None => Err(Denied::Unknown("send x-name".to_owned())),
        }
    }

    async fn authorize(&self, who: &Identity, access: &Access) -> Result<(), Denied> {
        match access {
            Access::ReadModel { table: "account_overview", key } if who.client != "root" => {
                match key {
                    Some(key) if *key == who.client => Ok(()),
                    _ => Err(Denied::Forbidden("that is not yours".to_owned())),
                }
            }
            _ => Ok(()),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_and_live_updates_are_for_those_who_may_see_them() {
    let api = Api::new().await;
    api.deposit("a", "ada", 5).await;
    let store = EventStore::connect(&api.database.url()).await.unwrap();
    let gateway = Gateway::new(&store, Bus::new(&store)).authenticate(Owners);
    let router = gateway.read_model::<AccountOverview>("/overview").router();
    for accept in ["application/json", "text/event-stream"] {
        for (path, name, status) in [
            ("/overview", None, 401),
            ("/overview/a", None, 401),
            ("/overview", Some("a"), 403),
            ("/overview/b", Some("a"), 403),
            ("/overview/a", Some("a"), 200),
            ("/overview/a", Some("root"), 200),
            ("/overview", Some("root"), 200),
        ] {
            let mut request = Request::get(path).header("accept", accept);
            if let Some(name) = name {
                request = request.header("x-name", name);
            }
            let request = request.body(Body::empty()).unwrap();
            let answer = router.clone().oneshot(request).await.unwrap();
            let expected = if status == 200 { accept } else { "application/problem+json" };
            assert_eq!(answer.status().as_u16(), status, "{accept} {path} {name:?}");
            assert_eq!(answer.headers()["content-type"], expected);
        }
    }
    api.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn live_updates_are_of_now() {
    let api = Api::new().await;
    api.deposit("a", "ada", 5).await;
    for path in
        ["/overview/a?as_of=position:1", "/overview?as_of=position:1", "/overview?owner=ada"]
    {
        let request = Request::get(path).header("accept", "text/event-stream");
        let request = request.body(Body::empty()).unwrap();
        let refused = api.router.clone().oneshot(request).await.unwrap();
        assert_eq!(refused.status(), StatusCode::BAD_REQUEST, "{path}");
        // Without live updates, the same can be asked.
        assert_eq!(api.get(path).await.0, 200, "{path}");
    }
    api.end().await;
}
