//! Health: whether a process lives, and whether it is ready for work, with reasons.
//!
//! An orchestrator asks both over HTTP. A process that does not live is restarted; one that is not ready gets no requests
//! until it is. So a database that is down makes a process unready, and restarts nothing.
//!
//! ```no_run
//! use std::time::Duration;
//!
//! use annals::{EventStore, health::Health};
//!
//! # async fn run(store: EventStore) -> std::io::Result<()> {
//! let health = Health::new()
//!     .store(&store)
//!     .projections_within(&store, Duration::from_secs(30))
//!     .check("disk", async || Err("only 10 MB are left".to_owned()));
//! // GET /health/live and /health/ready
//! let listener = tokio::net::TcpListener::bind("0.0.0.0:8081").await?;
//! axum::serve(listener, health.router()).await
//! # }
//! ```
//!
//! The [gateway](crate::gateway) has these routes, with the check of its store.
#![cfg_attr(not(feature = "gateway"), allow(rustdoc::broken_intra_doc_links))]

use std::{sync::Arc, time::Duration};

use annals_eventstore::EventStore;
use annals_projections::control;
use axum::{
    Json, Router,
    extract::State,
    response::{IntoResponse, Response},
    routing::get,
};
use futures::future::{BoxFuture, join_all};
use http::{StatusCode, header};
use serde_json::{Map, Value, json};
use tokio_util::sync::CancellationToken;

/// How long a check may take: less than an orchestrator waits, as a rule.
const LIMIT: Duration = Duration::from_secs(2);

/// Checks that say if a process is ready. Clones share them.
#[derive(Clone, Default)]
pub struct Health {
    checks: Vec<Check>,
    stop: Option<CancellationToken>,
}

#[derive(Clone)]
struct Check {
    name: &'static str,
    run: Arc<dyn Fn() -> BoxFuture<'static, Result<(), String>> + Send + Sync>,
}

impl std::fmt::Debug for Health {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let names: Vec<_> = self.checks.iter().map(|check| check.name).collect();
        f.debug_struct("Health").field("checks", &names).finish_non_exhaustive()
    }
}

/// What the checks found.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Readiness {
    /// Each check in its order: fine, or why not.
    pub checks: Vec<(&'static str, Result<(), String>)>,
}

impl Readiness {
    /// True if all checks are fine.
    pub fn is_ready(&self) -> bool {
        self.checks.iter().all(|(_, found)| found.is_ok())
    }

    fn to_json(&self) -> Value {
        let found = |found: &Result<(), String>| match found {
            Ok(()) => "ok".to_owned(),
            Err(reason) => reason.clone(),
        };
        let checks: Map<_, _> =
            self.checks.iter().map(|(name, is)| ((*name).to_owned(), found(is).into())).collect();
        json!({ "status": if self.is_ready() { "ready" } else { "not ready" }, "checks": checks })
    }
}

impl Health {
    /// Without checks: always ready.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a check of one's own. It is run whenever somebody asks; what takes longer than two seconds is dropped, and
    /// counts as an error.
    #[must_use]
    pub fn check<F, Checking>(mut self, name: &'static str, check: F) -> Self
    where
        F: Fn() -> Checking + Send + Sync + 'static,
        Checking: Future<Output = Result<(), String>> + Send + 'static,
    {
        self.checks.push(Check { name, run: Arc::new(move || Box::pin(check())) });
        self
    }

    /// Adds the check `store`: the database answers.
    #[must_use]
    pub fn store(self, store: &EventStore) -> Self {
        let store = store.clone();
        self.check("store", move || {
            let store = store.clone();
            async move { store.safe_position().await.map(drop).map_err(|error| chain(&error)) }
        })
    }

    /// Adds the check `projections`: each one has workers, or is inline, and has let no event wait for longer than this.
    /// For processes that answer queries; a worker that catches up is no reason not to let it work.
    #[must_use]
    pub fn projections_within(self, store: &EventStore, limit: Duration) -> Self {
        let store = store.clone();
        self.check("projections", move || {
            let store = store.clone();
            async move { projections(&store, limit).await }
        })
    }

    /// Is not ready any more once this says so: an orchestrator sends no more requests while those under way are
    /// answered.
    #[must_use]
    pub fn until(mut self, stop: CancellationToken) -> Self {
        self.stop = Some(stop);
        self
    }

    /// Runs all checks, at the same time.
    pub async fn ready(&self) -> Readiness {
        let checks = self.checks.iter().map(|check| async move {
            let found = tokio::time::timeout(LIMIT, (check.run)()).await;
            (check.name, found.unwrap_or_else(|_| Err(format!("no answer within {LIMIT:?}"))))
        });
        let mut checks = join_all(checks).await;
        if let Some(stop) = &self.stop {
            let stopping = stop.is_cancelled();
            checks.push((
                "stopping",
                if stopping { Err("it is told to stop".into()) } else { Ok(()) },
            ));
        }
        Readiness { checks }
    }

    /// `GET /health/live` is 200 as long as the process answers at all. `GET /health/ready` is 200 or 503, and its body
    /// says what the checks found: `{"status": "not ready", "checks": {"store": "..."}}`. `GET /health` is the same.
    pub fn router<S: Clone + Send + Sync + 'static>(self) -> Router<S> {
        Router::new()
            .route("/health", get(ready))
            .route("/health/ready", get(ready))
            .route("/health/live", get(live))
            .with_state(self)
    }
}

async fn live() -> Response {
    ([(header::CACHE_CONTROL, "no-store")], Json(json!({ "status": "alive" }))).into_response()
}

async fn ready(State(health): State<Health>) -> Response {
    let readiness = health.ready().await;
    let status = match readiness.is_ready() {
        true => StatusCode::OK,
        false => {
            tracing::warn!(readiness = %readiness.to_json(), "not ready");
            StatusCode::SERVICE_UNAVAILABLE
        }
    };
    (status, [(header::CACHE_CONTROL, "no-store")], Json(readiness.to_json())).into_response()
}

async fn projections(store: &EventStore, limit: Duration) -> Result<(), String> {
    let all = control::status(store).await.map_err(|error| chain(&error))?;
    let mut reasons = Vec::new();
    for projection in all {
        let name = &projection.name;
        match &projection.state {
            control::State::Running | control::State::Inline => {}
            control::State::Stopped => reasons.push(format!("{name} has no worker")),
            control::State::Paused(why) => reasons.push(format!("{name} is paused: {why}")),
            control::State::Broken { reason, .. } => {
                reasons.push(format!("the circuit of {name} is open: {reason}"));
            }
            other => reasons.push(format!("{name} is {other:?}")),
        }
        if let Some(waiting) = projection.waiting.filter(|waiting| *waiting > limit) {
            let behind = projection.behind;
            reasons.push(format!("{name} is {behind} events and {} s behind", waiting.as_secs()));
        }
    }
    if reasons.is_empty() { Ok(()) } else { Err(reasons.join("; ")) }
}

/// An error and its causes, on one line.
fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let causes = std::iter::successors(Some(error), |error| error.source());
    causes.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn one_check_that_fails_makes_it_unready_and_says_why() {
        let health = Health::new().store(&EventStore::in_memory());
        assert!(health.ready().await.is_ready());
        let health = health.check("disk", async || Err("full".to_owned()));
        let found = health.ready().await;
        assert_eq!(found.checks, [("store", Ok(())), ("disk", Err("full".to_owned()))]);
        assert!(!found.is_ready());
        let expected =
            json!({ "status": "not ready", "checks": { "store": "ok", "disk": "full" } });
        assert_eq!(found.to_json(), expected);
    }

    #[tokio::test]
    async fn a_check_that_hangs_is_an_error_and_a_stop_is_one() {
        let stop = CancellationToken::new();
        let health = Health::new().until(stop.clone());
        assert!(health.ready().await.is_ready());
        stop.cancel();
        assert!(!health.ready().await.is_ready());
        let hangs = Health::new().check("hangs", std::future::pending);
        let found = tokio::time::timeout(Duration::from_secs(60), hangs.ready()).await.unwrap();
        assert!(!found.is_ready(), "{found:?}");
    }
}
