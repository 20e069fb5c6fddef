//! An HTTP gateway: commands and queries as routes of [axum], to mount in a server of one's own.
//!
//! ```no_run
//! # use annals::{Aggregate, Apply, Change, Command, Event, EventStore, Handle, Project, ReadModel, Recorded};
//! # use serde::{Deserialize, Serialize};
//! use annals::{bus::Bus, gateway::Gateway};
//! use schemars::JsonSchema;
//!
//! # #[derive(Event, Serialize, Deserialize)]
//! # enum AccountEvent { Deposited { amount: i64 } }
//! #[derive(Aggregate, Default, Serialize, JsonSchema)]
//! #[aggregate(category = "account", event = AccountEvent)]
//! struct Account { balance: i64 }
//! # impl Apply<AccountEvent> for Account { fn apply(&mut self, _: &AccountEvent) {} }
//!
//! #[derive(Command, Serialize, Deserialize, Clone, JsonSchema)]
//! #[command(aggregate = Account)]
//! struct Deposit { #[command(id)] account: String, amount: i64 }
//! # impl Handle<Deposit> for Account {
//! #     fn handle(&self, command: Deposit) -> Result<Vec<AccountEvent>, Self::Error> {
//! #         Ok(vec![AccountEvent::Deposited { amount: command.amount }])
//! #     }
//! # }
//!
//! #[derive(ReadModel, Clone, Serialize, JsonSchema)]
//! #[read_model(table = "account_overview", from(Account), history)]
//! struct AccountOverview { #[read_model(key)] account: String, balance: i64 }
//! # impl Project<AccountEvent> for AccountOverview {
//! #     fn project(row: Option<Self>, event: &Recorded<AccountEvent>) -> Change<Self> { Change::Keep }
//! # }
//!
//! # async fn run() -> Result<(), Box<dyn std::error::Error>> {
//! let store = EventStore::connect("postgres://localhost/bank").await?;
//! let api = Gateway::new(&store, Bus::new(&store))
//!     .command::<Deposit>("/accounts/{account}/deposits")
//!     .aggregate::<Account>("/accounts/{account}")
//!     .read_model::<AccountOverview>("/overview")
//!     .router();
//! let listener = tokio::net::TcpListener::bind("0.0.0.0:8080").await?;
//! axum::serve(listener, api).await?;
//! # Ok(()) }
//! ```
//!
//! # What it speaks
//! | | |
//! |---|---|
//! | `POST` a command | the body is the command as JSON; fields that are in the path can be left away |
//! | `Idempotency-Key` | done once under the key; the recorded outcome is returned to whoever sends it again |
//! | `If-Match: "7"`, `If-None-Match: *` | done only at that version, or if there is no stream; else 412 |
//! | `Prefer: wait=5` | with a command: until the gateway's read models that its category feeds show it (`"visible": true`); with `at_least`: until the read model is there |
//! | `ETag` | the version of the stream, or of the aggregate |
//! | `as_of` | a time, `position:N`, or of aggregates `version:N` |
//! | `consistency=strong`, `at_least=N` | how fresh an answer must be; else it is eventually consistent |
//! | `limit`, `after`, a column's name | which rows |
//! | `Accept: text/event-stream` | a row whenever it changes; of all rows what becomes of them, from `Last-Event-ID` on (needs history) |
//! | `x-request-id`, `traceparent` | recorded with the events as correlation id and trace context; an id is made where there is none |
//!
//! Errors are `application/problem+json`; with 429 and 503 comes `Retry-After`. `GET /openapi.json` describes it
//! all. `GET /health/live` and `GET /health/ready` are for orchestrators ([`Gateway::health`]).

mod admission;
mod aggregate;
mod asked;
mod command;
mod document;
mod follow;
mod identity;
mod live;
mod metrics;
mod problem;
mod read_model;
mod shared;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use annals_eventstore::{Aggregate, Command, EventStore, Handle, Metadata, metrics::Metric, trace};
use annals_projections::{QueryCache, ReadModel};
use axum::{
    Extension, Router,
    extract::State,
    response::{IntoResponse, Response},
    routing::{get, post},
};
use http::header;
use schemars::JsonSchema;
use serde::{Serialize, de::DeserializeOwned};
use tower_http::{ServiceBuilderExt, request_id::MakeRequestUuid, trace::TraceLayer};

pub use self::identity::{Access, Authenticate, Denied, Identity};
pub(crate) use self::metrics::METRICS;
use self::{
    admission::{AT_ONCE, Door, admit},
    document::Document,
    follow::Follow,
    identity::Everybody,
    live::{CATCH_UP, Live, STREAMS},
    problem::Problem,
    shared::{Shared, Waiter},
};
use crate::{
    bus::{Bus, Dispatch, Standard, policy::RateLimit},
    health::Health,
};

/// Collects routes and makes a router of them. See the [module](self).
#[must_use = "a gateway does nothing until its router is served"]
pub struct Gateway<S = Standard> {
    store: EventStore,
    cache: Option<QueryCache>,
    bus: Bus<S>,
    authenticate: Arc<dyn Authenticate>,
    rate_limit: Option<RateLimit>,
    at_once: usize,
    streams: usize,
    catch_up: u64,
    title: String,
    version: String,
    router: Router<Arc<Shared<S>>>,
    document: Document,
    read_models: Vec<Waiter>,
    health: Health,
}

impl<S> std::fmt::Debug for Gateway<S> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Gateway").field("title", &self.title).finish_non_exhaustive()
    }
}

impl<S: Clone + Send + Sync + 'static> Gateway<S> {
    /// A gateway without routes: commands go over this bus, queries to this store.
    pub fn new(store: &EventStore, bus: Bus<S>) -> Self {
        Self {
            store: store.clone(),
            cache: None,
            bus,
            authenticate: Arc::new(Everybody),
            rate_limit: None,
            at_once: AT_ONCE,
            streams: STREAMS,
            catch_up: CATCH_UP,
            title: "Annals".to_owned(),
            version: "1".to_owned(),
            router: Router::new(),
            document: Document::new(),
            read_models: Vec::new(),
            health: Health::new().store(store),
        }
    }

    /// Sets who is let in; everybody, as `anonymous`, unless set.
    pub fn authenticate(mut self, authenticate: impl Authenticate) -> Self {
        self.authenticate = Arc::new(authenticate);
        self
    }

    /// Limits the rate of each client, whatever it asks for: commands, aggregates, read models. No limit unless set; that of
    /// the bus holds for commands besides. Above it the answer is 429, or waits, as the limit says.
    ///
    /// Clients are told apart by who they are found to be: without [`authenticate`](Self::authenticate), all are one.
    pub fn rate_limit(mut self, limit: RateLimit) -> Self {
        self.rate_limit = Some(limit);
        self
    }

    /// Sets how many requests there may be at once: 4,096 unless set. One more is answered with 503 before its body is read, so
    /// that what requests take of memory is bounded: by this number, and by 2 MiB for a body. Live updates count until they
    /// have begun; then [`live_streams`](Self::live_streams) holds for them.
    pub fn requests_at_once(mut self, requests: usize) -> Self {
        self.at_once = requests;
        self
    }

    /// Sets how many live updates (`Accept: text/event-stream`) there may be at a time: 1,024 unless set. One more is answered with
    /// 503. Each asks the database whenever its read model moves, and has the changes of 1,000 positions in memory at most.
    pub fn live_streams(mut self, streams: usize) -> Self {
        self.streams = streams;
        self
    }

    /// Sets how far behind a client of live changes may be, in positions: 100,000 unless set. One that is further behind, by
    /// its `Last-Event-ID`, gets one event `reload` instead of what it has missed: it reads the rows again, and changes go on
    /// from there.
    pub fn live_catch_up(mut self, positions: u64) -> Self {
        self.catch_up = positions;
        self
    }

    /// Answers queries on read models from a cache, which is of the same store. Answers are as fresh as its documentation
    /// says; live updates always come from the database.
    pub fn query_cache(mut self, cache: QueryCache) -> Self {
        self.cache = Some(cache);
        self
    }

    /// Sets the title and the version of the API, for its OpenAPI document.
    pub fn describe(mut self, title: impl Into<String>, version: impl Into<String>) -> Self {
        (self.title, self.version) = (title.into(), version.into());
        self
    }

    /// Sets what makes the process ready for requests, at `/health/ready`: that the store answers, unless set.
    pub fn health(mut self, health: Health) -> Self {
        self.health = health;
        self
    }

    /// Takes commands of a type with `POST`. Parameters of the path, in braces, are fields of the command.
    ///
    /// # Panics
    /// As [`Router::route`]: if the path is not valid, or taken.
    pub fn command<C>(mut self, path: &str) -> Self
    where
        C: Command + DeserializeOwned + JsonSchema,
        C::Aggregate: Handle<C>,
        S: Dispatch<C>,
    {
        self.document.command::<C>(path);
        self.router = self.router.route(path, post(command::execute::<C, S>));
        self
    }

    /// Shows aggregates of a type with `GET`. The path has one parameter, which is the key.
    ///
    /// # Panics
    /// As [`Router::route`]: if the path is not valid, or taken.
    pub fn aggregate<A>(mut self, path: &str) -> Self
    where
        A: Aggregate + Serialize + JsonSchema,
    {
        self.document.aggregate::<A>(path);
        self.router = self.router.route(path, get(aggregate::show::<A, S>));
        self
    }

    /// Shows a read model with `GET`: its rows at the path, one of them at `{path}/{key}`.
    ///
    /// # Panics
    /// As [`Router::route`]: if the path is not valid, or taken.
    pub fn read_model<R>(mut self, path: &str) -> Self
    where
        R: ReadModel + Serialize + JsonSchema,
    {
        self.document.read_model::<R>(path);
        self.read_models.push(Waiter::of::<R>());
        let follow = Extension(Follow::<R>::new());
        let rows = get(read_model::rows::<R, S>).layer(follow.clone());
        let row = get(read_model::row::<R, S>).layer(follow);
        self.router = self.router.route(path, rows).route(&format!("{path}/{{key}}"), row);
        self
    }

    /// The router, to serve or to nest in another.
    pub fn router(self) -> Router {
        METRICS.iter().for_each(Metric::describe);
        let document = self.document.finish(&self.title, &self.version).to_string();
        let shared = Arc::new(Shared {
            store: self.store,
            cache: self.cache,
            bus: self.bus,
            authenticate: self.authenticate,
            rate_limit: self.rate_limit,
            live: Live::new(self.streams, self.catch_up),
            read_models: self.read_models,
            document,
        });
        // From the outside in: the span needs the id.
        let layers = tower::ServiceBuilder::new()
            .set_x_request_id(MakeRequestUuid)
            .layer(TraceLayer::new_for_http().make_span_with(span))
            .propagate_x_request_id();
        let door = Door::new(self.at_once);
        self.router
            .layer(axum::middleware::from_fn_with_state(door, admit))
            .route("/openapi.json", get(openapi::<S>))
            .merge(self.health.router())
            .fallback(async || Problem::not_found("there is nothing at this path"))
            .layer(layers)
            .layer(axum::middleware::from_fn(metrics::measure))
            .with_state(shared)
    }
}

/// The span of a request: what happens for it is in it.
fn span<B>(request: &http::Request<B>) -> tracing::Span {
    let id = request.headers().get("x-request-id").and_then(|id| id.to_str().ok());
    let path = request.uri().path();
    let route = metrics::route(request);
    let span = tracing::info_span!("http", method = %request.method(), path, route, id);
    // The caller's trace goes on.
    let mut metadata = Metadata::new();
    metadata.traceparent = shared::traceparent(request.headers());
    trace::continue_from(&span, &metadata);
    span
}

async fn openapi<S>(State(shared): State<Arc<Shared<S>>>) -> Response {
    ([(header::CONTENT_TYPE, "application/json")], shared.document.clone()).into_response()
}
