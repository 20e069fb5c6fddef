//! Who comes in: so many requests at once, and from each client so many in a time.

use std::sync::Arc;

use axum::{
    extract::{Request, State},
    middleware::Next,
    response::{IntoResponse, Response},
};
use tokio::sync::Semaphore;

use super::problem::Problem;

/// How many requests there are at once, unless set: as many as a bus has commands.
pub(super) const AT_ONCE: usize = 4096;

/// So many requests at once. One more is told to come back, before its body is read, so that memory is bounded.
#[derive(Clone)]
pub(super) struct Door {
    places: Arc<Semaphore>,
    limit: usize,
}

impl Door {
    pub(super) fn new(limit: usize) -> Self {
        let limit = limit.clamp(1, Semaphore::MAX_PERMITS);
        Self { places: Arc::new(Semaphore::new(limit)), limit }
    }
}

/// Lets a request in, if there is room for it until it is answered. An answer that goes on, such as live updates, has
/// left by then; these have places of their own.
pub(super) async fn admit(State(door): State<Door>, request: Request, next: Next) -> Response {
    match door.places.try_acquire() {
        Ok(_place) => next.run(request).await,
        Err(_) => Problem::overloaded("requests", door.limit).into_response(),
    }
}
