//! What the gateway tells a recorder of metrics.

use std::time::Instant;

use annals_eventstore::metrics::Metric;
use axum::{
    extract::{MatchedPath, Request},
    middleware::Next,
    response::Response,
};
use http::Method;
use metrics::{Unit, histogram};

const DURATION: Metric = Metric::histogram(
    "annals_http_request_duration_seconds",
    Unit::Seconds,
    &["method", "route", "status"],
    "How long requests take, until the head of the answer",
);

/// All of them.
pub(crate) const METRICS: &[Metric] = &[DURATION];

/// Measures requests by their route, as it was given to the gateway: paths are too many for labels.
pub(super) async fn measure(request: Request, next: Next) -> Response {
    let method = method(request.method());
    let route = route(&request).unwrap_or("none").to_owned();
    let began = Instant::now();
    let response = next.run(request).await;
    let status = response.status().as_u16().to_string();
    histogram!(DURATION.name, "method" => method, "route" => route, "status" => status)
        .record(began.elapsed());
    response
}

/// The route that a request has come to; none if there is nothing at its path.
pub(super) fn route<B>(request: &http::Request<B>) -> Option<&str> {
    request.extensions().get::<MatchedPath>().map(MatchedPath::as_str)
}

/// Anybody can make methods up.
fn method(method: &Method) -> &'static str {
    match *method {
        Method::GET => "GET",
        Method::POST => "POST",
        Method::HEAD => "HEAD",
        Method::OPTIONS => "OPTIONS",
        Method::PUT => "PUT",
        Method::DELETE => "DELETE",
        Method::PATCH => "PATCH",
        _ => "other",
    }
}
