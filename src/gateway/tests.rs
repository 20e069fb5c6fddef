//! The gateway as a client sees it, over a store in memory.

use std::time::Duration;

use annals_eventstore::{Aggregate, Apply, Command, Event, EventStore, Handle, Recorded};
use annals_projections::{Change, Project, ReadModel, async_trait};
use axum::{Router, body::Body};
use http::{Request, StatusCode, header};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tower::ServiceExt;

use super::{Access, Authenticate, Denied, Gateway, Identity};
use crate::bus::{
    Bus, Policies,
    policy::{OnLimit, RateLimit},
};

#[derive(Event, Serialize, Deserialize)]
enum AccountEvent {
    Deposited { amount: i64 },
    Withdrawn { amount: i64 },
}

#[derive(Aggregate, Default, Serialize, JsonSchema)]
#[aggregate(category = "account", event = AccountEvent, error = Overdrawn)]
struct Account {
    balance: i64,
}

#[derive(Debug, thiserror::Error)]
#[error("the balance is {balance}")]
struct Overdrawn {
    balance: i64,
}

impl Apply<AccountEvent> for Account {
    fn apply(&mut self, event: &AccountEvent) {
        match event {
            AccountEvent::Deposited { amount } => self.balance += amount,
            AccountEvent::Withdrawn { amount } => self.balance -= amount,
        }
    }
}

#[derive(Command, Serialize, Deserialize, Clone, JsonSchema)]
#[command(aggregate = Account)]
struct Deposit {
    #[command(id)]
    account: u32,
    amount: i64,
}

#[derive(Command, Serialize, Deserialize, Clone, JsonSchema)]
#[command(aggregate = Account)]
struct Withdraw {
    #[command(id)]
    account: u32,
    amount: i64,
}

impl Handle<Deposit> for Account {
    fn handle(&self, command: Deposit) -> Result<Vec<AccountEvent>, Overdrawn> {
        Ok(vec![AccountEvent::Deposited { amount: command.amount }])
    }
}

impl Handle<Withdraw> for Account {
    fn handle(&self, command: Withdraw) -> Result<Vec<AccountEvent>, Overdrawn> {
        if command.amount > self.balance {
            return Err(Overdrawn { balance: self.balance });
        }
        Ok(vec![AccountEvent::Withdrawn { amount: command.amount }])
    }
}

/// Whoever says who they are is believed; only root withdraws.
struct ByName;

#[async_trait]
impl Authenticate for ByName {
    async fn authenticate(&self, parts: &http::request::Parts) -> Result<Identity, Denied> {
        match parts.headers.get("x-name").and_then(|name| name.to_str().ok()) {
            Some(name) => Ok(Identity::new(name).actor(name)),
            None => Err(Denied::Unknown("send x-name".to_owned())),
        }
    }

    async fn authorize(&self, identity: &Identity, access: &Access) -> Result<(), Denied> {
        match access {
            Access::Command { name, .. } if *name == "Withdraw" && identity.client != "root" => {
                Err(Denied::Forbidden("only root withdraws".to_owned()))
            }
            _ => Ok(()),
        }
    }
}

#[derive(ReadModel, Clone, Serialize, JsonSchema)]
#[read_model(table = "overview", from(Account), history)]
struct Overview {
    #[read_model(key)]
    account: String,
    balance: i64,
}

impl Project<AccountEvent> for Overview {
    fn project(row: Option<Self>, _: &Recorded<AccountEvent>) -> Change<Self> {
        row.map_or(Change::Keep, Change::Set)
    }
}

fn gateway(bus: Bus, store: &EventStore) -> Gateway {
    Gateway::new(store, bus)
        .command::<Deposit>("/accounts/{account}/deposits")
        .command::<Withdraw>("/accounts/{account}/withdrawals")
        .aggregate::<Account>("/accounts/{account}")
}

fn router() -> (EventStore, Router) {
    let store = EventStore::in_memory();
    let router = gateway(Bus::new(&store), &store).router();
    (store, router)
}

struct Answer {
    status: StatusCode,
    headers: http::HeaderMap,
    body: Value,
}

impl Answer {
    fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }

    /// It is this problem, in the form that problems have.
    fn assert_problem(&self, status: u16, kind: &str) {
        assert_eq!(self.status.as_u16(), status, "{}", self.body);
        assert_eq!(self.header("content-type"), "application/problem+json");
        assert_eq!(self.body["type"], format!("urn:annals:problem:{kind}"));
        assert_eq!(self.body["status"], status);
        assert!(self.body["detail"].as_str().is_some_and(|detail| !detail.is_empty()));
    }
}

async fn send(router: &Router, request: Request<Body>) -> Answer {
    let response = router.clone().oneshot(request).await.unwrap();
    let (parts, body) = response.into_parts();
    let bytes = axum::body::to_bytes(body, usize::MAX).await.unwrap();
    let body = serde_json::from_slice(&bytes).unwrap_or(Value::Null);
    Answer { status: parts.status, headers: parts.headers, body }
}

async fn get(router: &Router, path: &str) -> Answer {
    send(router, Request::get(path).body(Body::empty()).unwrap()).await
}

async fn post(router: &Router, path: &str, headers: &[(&str, &str)], body: Value) -> Answer {
    let mut request = Request::post(path);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    send(router, request.body(Body::from(body.to_string())).unwrap()).await
}

#[tokio::test]
async fn commands_are_done_and_aggregates_shown_now_and_then() {
    let (store, router) = router();
    let trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    let headers = [("x-request-id", "r-1"), ("traceparent", trace)];
    let done = post(&router, "/accounts/7/deposits", &headers, json!({ "amount": 5 })).await;
    assert_eq!((done.status, done.header("etag")), (StatusCode::CREATED, "\"1\""));
    assert_eq!(done.header("x-request-id"), "r-1");
    assert_eq!(
        done.body,
        json!({ "stream": "account-7", "version": 1, "position": 1, "events": 1, "replayed": false })
    );
    let done =
        post(&router, "/accounts/7/deposits", &[], json!({ "amount": 2, "account": 7 })).await;
    assert_eq!((done.status, done.header("etag")), (StatusCode::OK, "\"2\""));
    assert!(!done.header("x-request-id").is_empty());

    let shown = get(&router, "/accounts/7").await;
    assert_eq!(shown.body, json!({ "state": { "balance": 7 }, "version": 2, "position": 2 }));
    for as_of in ["version:1", "position:1"] {
        let shown = get(&router, &format!("/accounts/7?as_of={as_of}")).await;
        assert_eq!((shown.header("etag"), &shown.body["state"]["balance"]), ("\"1\"", &json!(5)));
    }
    let known = Request::get("/accounts/7").header(header::IF_NONE_MATCH, "\"2\"");
    let known = send(&router, known.body(Body::empty()).unwrap()).await;
    assert_eq!(known.status, StatusCode::NOT_MODIFIED);

    use futures::TryStreamExt;
    let log: Vec<_> =
        store.read_all(annals_eventstore::Position::START).try_collect().await.unwrap();
    assert_eq!(log[0].metadata.correlation_id.as_deref(), Some("r-1"));
    assert_eq!(log[0].metadata.traceparent.as_deref(), Some(trace));
    assert_eq!(log[1].metadata.traceparent, None);
}

#[tokio::test]
async fn a_key_stands_for_one_command_of_one_client() {
    let (_, router) = router();
    let key = [("idempotency-key", "\"k-1\"")];
    let first = post(&router, "/accounts/7/deposits", &key, json!({ "amount": 5 })).await;
    let again = post(&router, "/accounts/7/deposits", &key, json!({ "amount": 5 })).await;
    assert_eq!(again.body["position"], first.body["position"]);
    assert_eq!(again.body["replayed"], true);
    let other = post(&router, "/accounts/7/deposits", &key, json!({ "amount": 6 })).await;
    other.assert_problem(422, "idempotency-key-reused");
    assert_eq!(get(&router, "/accounts/7").await.body["state"]["balance"], 5);
}

#[tokio::test]
async fn a_conditional_command_is_done_at_its_version_only() {
    let (_, router) = router();
    let none = [("if-none-match", "*")];
    let path = "/accounts/7/deposits";
    assert_eq!(post(&router, path, &none, json!({ "amount": 5 })).await.status.as_u16(), 201);
    post(&router, path, &none, json!({ "amount": 5 })).await.assert_problem(412, "version-differs");
    let stale = post(&router, path, &[("if-match", "\"3\"")], json!({ "amount": 5 })).await;
    stale.assert_problem(412, "version-differs");
    assert_eq!(stale.body["version"], 1);
    let done = post(&router, path, &[("if-match", "\"1\"")], json!({ "amount": 5 })).await;
    assert_eq!(done.header("etag"), "\"2\"");
}

#[tokio::test]
async fn what_is_wrong_is_said_as_a_problem() {
    let (_, router) = router();
    let path = "/accounts/7/withdrawals";
    let rejected = post(&router, path, &[], json!({ "amount": 5 })).await;
    rejected.assert_problem(422, "rejected");
    assert_eq!(rejected.body["detail"], "the balance is 0");
    for (path, headers, body, status, kind) in [
        (path, vec![], json!({ "amount": "five" }), 422, "not-the-command"),
        (path, vec![], json!([1]), 400, "bad-request"),
        (path, vec![], json!({ "amount": 5, "account": 8 }), 400, "bad-request"),
        (path, vec![("if-match", "7")], json!({ "amount": 5 }), 400, "bad-request"),
        (path, vec![("prefer", "wait=x")], json!({ "amount": 5 }), 400, "bad-request"),
        ("/nothing", vec![], json!({}), 404, "not-found"),
    ] {
        post(&router, path, &headers, body).await.assert_problem(status, kind);
    }
    for (path, status) in [
        ("/accounts/8", 404),
        ("/accounts/7?as_of=tomorrow", 400),
        ("/accounts/7?as_off=version:1", 400),
        ("/accounts/7?as_of=position:99", 400),
    ] {
        assert_eq!(get(&router, path).await.status.as_u16(), status, "{path}");
    }
    let large = json!({ "amount": 5, "note": "x".repeat(3 << 20) });
    post(&router, path, &[], large).await.assert_problem(413, "too-large");
}

#[tokio::test]
async fn only_who_may_gets_in() {
    let store = EventStore::in_memory();
    let router = gateway(Bus::new(&store), &store).authenticate(ByName).router();
    let path = "/accounts/7/deposits";
    let nobody = post(&router, path, &[], json!({ "amount": 5 })).await;
    nobody.assert_problem(401, "unauthorized");
    assert_eq!(nobody.header("www-authenticate"), "Bearer");
    let ada = [("x-name", "ada")];
    assert_eq!(post(&router, path, &ada, json!({ "amount": 5 })).await.status.as_u16(), 201);
    let path = "/accounts/7/withdrawals";
    post(&router, path, &ada, json!({ "amount": 5 })).await.assert_problem(403, "forbidden");
    let root = [("x-name", "root")];
    assert_eq!(post(&router, path, &root, json!({ "amount": 5 })).await.status.as_u16(), 200);
    get(&router, "/accounts/7").await.assert_problem(401, "unauthorized");
}

#[tokio::test]
async fn too_much_is_told_with_when_to_come_back() {
    let store = EventStore::in_memory();
    let rate_limit = RateLimit::with_burst(1, 1);
    let policies = Policies { rate_limit, ..Policies::default() };
    let router = gateway(Bus::with(policies, &store), &store).router();
    let path = "/accounts/7/deposits";
    assert_eq!(post(&router, path, &[], json!({ "amount": 5 })).await.status.as_u16(), 201);
    let refused = post(&router, path, &[], json!({ "amount": 5 })).await;
    refused.assert_problem(429, "rate-limited");
    assert_eq!(refused.header("retry-after"), "1");
    tokio::time::sleep(Duration::from_millis(1100)).await;
    assert_eq!(post(&router, path, &[], json!({ "amount": 5 })).await.status.as_u16(), 200);
}

#[tokio::test]
async fn the_gateway_limits_queries_of_a_client_too() {
    let store = EventStore::in_memory();
    let gateway = || gateway(Bus::new(&store), &store).authenticate(ByName);
    let ask = async |router: &Router, name: &str| {
        let request = Request::get("/accounts/7").header("x-name", name).body(Body::empty());
        send(router, request.unwrap()).await
    };
    let rejecting = gateway().rate_limit(RateLimit::with_burst(1, 2)).router();
    for _ in 0..2 {
        ask(&rejecting, "ada").await.assert_problem(404, "not-found");
    }
    let refused = ask(&rejecting, "ada").await;
    refused.assert_problem(429, "rate-limited");
    assert_eq!(refused.header("retry-after"), "1");
    ask(&rejecting, "bob").await.assert_problem(404, "not-found");

    let patience = OnLimit::Wait(Duration::from_secs(10));
    let waiting = gateway().rate_limit(RateLimit::with_burst(10, 1).on_limit(patience)).router();
    let began = std::time::Instant::now();
    for _ in 0..3 {
        ask(&waiting, "ada").await.assert_problem(404, "not-found");
    }
    assert!(began.elapsed() >= Duration::from_millis(180), "{:?}", began.elapsed());
}

#[tokio::test]
async fn no_more_requests_at_once_than_there_may_be() {
    let store = EventStore::in_memory();
    let router = gateway(Bus::new(&store), &store).requests_at_once(1).router();
    // Its body does not come, so it stays.
    let body = Body::from_stream(futures::stream::pending::<Result<String, std::io::Error>>());
    let stuck = Request::post("/accounts/7/deposits").body(body).unwrap();
    let stuck = tokio::spawn(router.clone().oneshot(stuck));
    let refused = loop {
        let answer = get(&router, "/accounts/7").await;
        if answer.status != StatusCode::NOT_FOUND {
            break answer;
        }
        tokio::task::yield_now().await;
    };
    refused.assert_problem(503, "overloaded");
    assert_eq!(refused.header("retry-after"), "1");
    // Whether it lives is no request of a client.
    assert_eq!(get(&router, "/health").await.status, StatusCode::OK);
    stuck.abort();
    assert!(stuck.await.is_err());
    get(&router, "/accounts/7").await.assert_problem(404, "not-found");
}

/// Each route is in the document, and what it refers to is there.
#[tokio::test]
async fn the_document_describes_every_route() {
    let store = EventStore::in_memory();
    let gateway = gateway(Bus::new(&store), &store).read_model::<Overview>("/overview");
    let router = gateway.router();
    let document = get(&router, "/openapi.json").await.body;
    assert_eq!(document["openapi"], "3.1.0");
    let paths = document["paths"].as_object().unwrap();
    let expected = [
        "/accounts/{account}",
        "/accounts/{account}/deposits",
        "/accounts/{account}/withdrawals",
        "/overview",
        "/overview/{key}",
    ];
    let mut found: Vec<_> = paths.keys().map(String::as_str).collect();
    found.sort_unstable();
    assert_eq!(found, expected);
    let text = document.to_string();
    for reference in text.split("\"$ref\":\"#").skip(1) {
        let pointer = reference.split('"').next().unwrap();
        assert!(document.pointer(pointer).is_some(), "{pointer} is not there");
    }
    assert!(text.contains("#/components/schemas/Deposit"));
    assert_eq!(
        document["components"]["schemas"]["Deposit"]["properties"]["amount"]["type"],
        "integer"
    );
    assert_eq!(
        document["components"]["schemas"]["Overview"]["properties"]["balance"]["type"],
        "integer"
    );
    // What a read model can be asked for, and as what it comes.
    for (path, status, asked) in [
        (
            "/overview",
            "503",
            ["consistency", "at_least", "Prefer", "as_of", "limit", "after", "account", "balance"]
                .as_slice(),
        ),
        (
            "/overview/{key}",
            "404",
            ["key", "consistency", "at_least", "Prefer", "as_of"].as_slice(),
        ),
    ] {
        let operation = &document["paths"][path]["get"];
        let parameters = operation["parameters"].as_array().unwrap();
        let names: Vec<_> = parameters.iter().map(|it| it["name"].as_str().unwrap()).collect();
        assert_eq!(names, asked, "{path}");
        assert!(operation["responses"][status].is_object(), "{path}: {status}");
        let content = &operation["responses"]["200"]["content"];
        assert!(content["application/json"].is_object(), "{path}: {content}");
        assert!(content["text/event-stream"].is_object(), "{path}: {content}");
    }
}
