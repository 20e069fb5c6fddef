//! Faults on demand: a service that fails, stalls, and hears the same call twice.
//!
//! The faults are of the network and the process around the service, not of its domain. A caller cannot tell them apart
//! from the outside: an error may come before the effect or after it, an answer may be late, or the effect.

use std::{
    sync::{Arc, PoisonError, RwLock},
    time::Duration,
};

use axum::{
    Json, Router,
    body::Body,
    extract::{Request, State},
    http::{Method, StatusCode},
    response::{IntoResponse, Response},
    routing::get,
};
use rand::Rng;
use serde::{Deserialize, Serialize};
use tower::ServiceExt;

/// How long a call that stalls takes: longer than any caller waits.
pub(crate) const STALL: Duration = Duration::from_secs(3);
/// How much later at most a call comes for the second time.
const ECHO: Duration = Duration::from_millis(500);
/// The longest body. Those of commands are shorter.
const MAX_BODY_BYTES: usize = 64 << 10;

/// How often which fault happens, from 0, never, to 1, always. Together they are 1 at most.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize, clap::Args)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Faults {
    /// The share of calls that fail: half of them before they have their effect, half after it.
    #[arg(long, value_name = "SHARE", default_value_t = 0.0, value_parser = share)]
    pub(crate) errors: f64,
    /// The share of calls that stall: half of them before they have their effect, half after it.
    #[arg(long, value_name = "SHARE", default_value_t = 0.0, value_parser = share)]
    pub(crate) stalls: f64,
    /// The share of calls that are heard twice.
    #[arg(long, value_name = "SHARE", default_value_t = 0.0, value_parser = share)]
    pub(crate) repeats: f64,
}

fn share(text: &str) -> Result<f64, String> {
    let share = text.parse().ok().filter(|share| (0.0..=1.0).contains(share));
    share.ok_or_else(|| "expected a number from 0 to 1".to_owned())
}

/// What happens to one call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    None,
    ErrorBefore,
    ErrorAfter,
    StallBefore,
    StallAfter,
    Repeat,
}

impl Faults {
    fn are_possible(&self) -> bool {
        let shares = [self.errors, self.stalls, self.repeats];
        shares.iter().all(|share| (0.0..=1.0).contains(share)) && shares.iter().sum::<f64>() <= 1.0
    }

    /// The fault for a number that is drawn between 0 and 1.
    fn of(&self, drawn: f64) -> Fault {
        let Self { errors, stalls, repeats } = *self;
        let shares = [
            (errors / 2.0, Fault::ErrorBefore),
            (errors / 2.0, Fault::ErrorAfter),
            (stalls / 2.0, Fault::StallBefore),
            (stalls / 2.0, Fault::StallAfter),
            (repeats, Fault::Repeat),
        ];
        let mut rest = drawn;
        for (share, fault) in shares {
            if rest < share {
                return fault;
            }
            rest -= share;
        }
        Fault::None
    }
}

/// A service with faults.
struct Faulty {
    inner: Router,
    faults: RwLock<Faults>,
}

/// Puts faults around a service: around its `POST`s, which are what has effects. `GET /faults` shows them, `PUT
/// /faults` sets them.
pub(crate) fn faulty(inner: Router, faults: Faults) -> Router {
    let shared = Arc::new(Faulty { inner, faults: RwLock::new(faults) });
    Router::new().route("/faults", get(show).put(set)).fallback(treat).with_state(shared)
}

impl Faulty {
    fn faults(&self) -> Faults {
        *self.faults.read().unwrap_or_else(PoisonError::into_inner)
    }

    async fn answer(&self, request: Request) -> Response {
        match self.inner.clone().oneshot(request).await {
            Ok(response) => response,
            Err(never) => match never {},
        }
    }

    async fn answer_with(&self, fault: Fault, request: Request) -> Response {
        match fault {
            Fault::None | Fault::Repeat => self.answer(request).await,
            Fault::ErrorBefore => failed(),
            Fault::ErrorAfter => {
                drop(self.answer(request).await);
                failed()
            }
            Fault::StallBefore => {
                tokio::time::sleep(STALL).await;
                self.answer(request).await
            }
            Fault::StallAfter => {
                let response = self.answer(request).await;
                tokio::time::sleep(STALL).await;
                response
            }
        }
    }
}

fn failed() -> Response {
    (StatusCode::INTERNAL_SERVER_ERROR, "a fault on demand").into_response()
}

async fn show(State(shared): State<Arc<Faulty>>) -> Json<Faults> {
    Json(shared.faults())
}

async fn set(State(shared): State<Arc<Faulty>>, Json(faults): Json<Faults>) -> Response {
    if !faults.are_possible() {
        let advice = "shares are from 0 to 1, and 1 at most together";
        return (StatusCode::UNPROCESSABLE_ENTITY, advice).into_response();
    }
    *shared.faults.write().unwrap_or_else(PoisonError::into_inner) = faults;
    StatusCode::NO_CONTENT.into_response()
}

async fn treat(State(shared): State<Arc<Faulty>>, request: Request) -> Response {
    if request.method() != Method::POST {
        return shared.answer(request).await;
    }
    let fault = shared.faults().of(rand::rng().random());
    let request = match fault {
        Fault::Repeat => match echoed(&shared, request).await {
            Ok(request) => request,
            Err(response) => return response,
        },
        _ => request,
    };
    // In a task of its own: it goes on when the caller has hung up, as calls on a network do.
    let answering = tokio::spawn(async move { shared.answer_with(fault, request).await });
    answering.await.unwrap_or_else(|_| failed())
}

/// Has a request be heard once more, a little later. Nobody waits for that answer.
async fn echoed(shared: &Arc<Faulty>, request: Request) -> Result<Request, Response> {
    let (parts, body) = request.into_parts();
    let bytes = axum::body::to_bytes(body, MAX_BODY_BYTES).await;
    let bytes = bytes.map_err(|_| StatusCode::PAYLOAD_TOO_LARGE.into_response())?;
    let echo = Request::from_parts(parts.clone(), Body::from(bytes.clone()));
    let (shared, after) = (shared.clone(), ECHO.mul_f64(rand::rng().random()));
    tokio::spawn(async move {
        tokio::time::sleep(after).await;
        drop(shared.answer(echo).await);
    });
    Ok(Request::from_parts(parts, Body::from(bytes)))
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use axum::routing::post;

    use super::*;

    #[test]
    fn each_fault_has_its_share() {
        let faults = Faults { errors: 0.2, stalls: 0.1, repeats: 0.1 };
        let drawn = (0..1000).map(|number| faults.of(f64::from(number) / 1000.0));
        let drawn: Vec<_> = drawn.collect();
        let count = |fault| drawn.iter().filter(|drawn| **drawn == fault).count();
        let counts = [Fault::ErrorBefore, Fault::ErrorAfter, Fault::StallBefore];
        assert!(counts.map(count).iter().zip([100, 100, 50]).all(|(is, be)| is.abs_diff(be) <= 1));
        let counts = [Fault::StallAfter, Fault::Repeat, Fault::None];
        assert!(counts.map(count).iter().zip([50, 100, 600]).all(|(is, be)| is.abs_diff(be) <= 1));
    }

    /// A service that counts what it does, behind these faults.
    fn counting(faults: Faults) -> (Router, Arc<AtomicU32>) {
        let count = Arc::new(AtomicU32::new(0));
        let counted = count.clone();
        let effect = post(move || async move {
            counted.fetch_add(1, Ordering::Relaxed);
        });
        (faulty(Router::new().route("/effect", effect), faults), count)
    }

    async fn send(
        router: &Router,
        request: axum::http::request::Builder,
        body: &str,
    ) -> StatusCode {
        let request = request.header("content-type", "application/json");
        let request = request.body(Body::from(body.to_owned())).unwrap();
        router.clone().oneshot(request).await.unwrap().status()
    }

    #[tokio::test]
    async fn errors_come_before_and_after_the_effect() {
        let (router, count) = counting(Faults { errors: 1.0, ..Faults::default() });
        for _ in 0..64 {
            let status = send(&router, Request::post("/effect"), "").await;
            assert_eq!(status, StatusCode::INTERNAL_SERVER_ERROR);
        }
        let effects = count.load(Ordering::Relaxed);
        assert!((1..64).contains(&effects), "{effects} of 64 had their effect");
    }

    async fn reaches(count: &AtomicU32, expected: u32) {
        let reached = async {
            while count.load(Ordering::Relaxed) < expected {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(60), reached)
            .await
            .expect("all have their effect");
        assert_eq!(count.load(Ordering::Relaxed), expected);
    }

    #[tokio::test]
    async fn what_is_repeated_has_its_effect_twice_and_faults_can_be_set() {
        let (router, count) = counting(Faults::default());
        assert_eq!(send(&router, Request::post("/effect"), "").await, StatusCode::OK);
        let set = send(&router, Request::put("/faults"), r#"{"repeats": 1.0}"#).await;
        assert_eq!(set, StatusCode::NO_CONTENT);
        assert_eq!(send(&router, Request::post("/effect"), "").await, StatusCode::OK);
        reaches(&count, 3).await;
        let too_many = send(&router, Request::put("/faults"), r#"{"errors": 2.0}"#).await;
        assert_eq!(too_many, StatusCode::UNPROCESSABLE_ENTITY);
    }

    #[tokio::test]
    async fn what_stalls_has_its_effect_also_when_the_caller_has_hung_up() {
        let (router, count) = counting(Faults { stalls: 1.0, ..Faults::default() });
        for _ in 0..16 {
            let call = send(&router, Request::post("/effect"), "");
            assert!(tokio::time::timeout(Duration::from_millis(20), call).await.is_err());
        }
        reaches(&count, 16).await;
    }
}
