//! Who makes the saga's calls: over HTTP to the three services, and to the own store.
//!
//! Each service has a line of its own, with what keeps its troubles from the others:
//! - a *time limit*, so that a service that stalls holds a call for a second and not for ever
//! - a *circuit breaker* (`Perform::circuit`), so that a service that is down is asked by one call at a time, to see
//! - a *bulkhead*, so that one that is slow takes its own places and not all
//!
//! Trying again, with growing waits of a random length, is the saga's: `Step::retry`. A call that is not made, because the
//! circuit is open or all places are taken, is put off, and counts as no attempt.

use std::time::Duration;

use annals::{
    Cause, EventStore,
    breaker::{BreakerOptions, CircuitBreaker},
    saga::{Answer, Attempt, Perform},
};
use anyhow::Context;
use rand::Rng;
use reqwest::{Client, StatusCode, Url};
use serde::{Deserialize, Serialize};
use tokio::sync::Semaphore;

use crate::{
    booking::ConfirmBooking,
    fulfilment::{Call, Fulfilment},
    kind::Kind,
    reservation::{Cancel, Reserve},
};

/// How long to wait for an answer.
const PATIENCE: Duration = Duration::from_secs(1);
/// How many calls to one service are made at the same time.
const PLACES: usize = 48;
/// How long a call is put off at least, and how much longer at most, so that not all come back together.
const PUT_OFF: Duration = Duration::from_millis(100);
const SPREAD: Duration = Duration::from_millis(300);

/// Makes the calls of fulfilments.
pub(crate) struct Agency {
    store: EventStore,
    lines: [Line; 3],
}

impl Agency {
    /// With the addresses of the services, in the order of [`Kind::ALL`].
    pub(crate) fn new(store: &EventStore, services: [Url; 3]) -> anyhow::Result<Self> {
        let client = Client::builder().timeout(PATIENCE).build().context("cannot call anybody")?;
        let [flight, hotel, car] = services;
        let line = |kind: Kind, url| Line::new(kind, url, client.clone());
        let lines = [line(Kind::Flight, flight), line(Kind::Hotel, hotel), line(Kind::Car, car)];
        Ok(Self { store: store.clone(), lines })
    }

    fn line(&self, kind: Kind) -> &Line {
        let [flight, hotel, car] = &self.lines;
        match kind {
            Kind::Flight => flight,
            Kind::Hotel => hotel,
            Kind::Car => car,
        }
    }
}

impl Perform<Fulfilment> for Agency {
    async fn perform(&self, call: &Call, attempt: &Attempt) -> Result<Answer<()>, Cause> {
        let booking = attempt.saga.key().parse()?;
        match call {
            Call::Reserve { kind, destination, travellers } => {
                let reserve = Reserve {
                    // The id of the call is that of the reservation, so a call that comes twice reserves once.
                    reservation: attempt.id,
                    kind: *kind,
                    booking,
                    destination: destination.clone(),
                    travellers: *travellers,
                };
                let path = format!("/reservations/{}", attempt.id);
                self.line(*kind).call(&path, &reserve, attempt).await
            }
            Call::Cancel { kind } => {
                let reservation = attempt.undoes.ok_or("it is not known what to cancel")?;
                let path = format!("/reservations/{reservation}/cancellation");
                self.line(*kind).call(&path, &Cancel { reservation, booking }, attempt).await
            }
            Call::Confirm => attempt.execute(&self.store, ConfirmBooking { booking }, |_| ()).await,
        }
    }

    fn circuit(&self, call: &Call) -> Option<&CircuitBreaker> {
        match call {
            Call::Reserve { kind, .. } | Call::Cancel { kind } => Some(&self.line(*kind).circuit),
            // In the own store.
            Call::Confirm => None,
        }
    }

    fn concurrency(&self) -> usize {
        // Full bulkheads leave room for confirmations.
        PLACES * 4
    }
}

/// The way to one service.
struct Line {
    client: Client,
    url: Url,
    circuit: CircuitBreaker,
    places: Semaphore,
}

impl Line {
    fn new(kind: Kind, url: Url, client: Client) -> Self {
        // Where one call in ten fails, so many in a row mean that all do.
        let options = BreakerOptions::default()
            .failures(8)
            .cool_down(Duration::from_millis(250), Duration::from_secs(2));
        let circuit = CircuitBreaker::new(kind.name(), options);
        Self { client, url, circuit, places: Semaphore::new(PLACES) }
    }

    async fn call(
        &self,
        path: &str,
        body: &impl Serialize,
        attempt: &Attempt,
    ) -> Result<Answer<()>, Cause> {
        let Ok(_place) = self.places.try_acquire() else { return Ok(put_off(Duration::ZERO)) };
        match self.send(path, body, attempt).await {
            Err(Unanswered::Busy { retry_after }) => Ok(put_off(retry_after)),
            answered => Ok(answered?),
        }
    }

    async fn send(
        &self,
        path: &str,
        body: &impl Serialize,
        attempt: &Attempt,
    ) -> Result<Answer<()>, Unanswered> {
        let mut url = self.url.clone();
        url.set_path(path);
        let key = attempt.id.to_string();
        let mut request = self.client.post(url).header("idempotency-key", key).json(body);
        let metadata = attempt.metadata();
        let context =
            [("x-request-id", &metadata.correlation_id), ("traceparent", &metadata.traceparent)];
        for (name, value) in context {
            if let Some(value) = value {
                request = request.header(name, value);
            }
        }
        let response = request.send().await?;
        match response.status() {
            status if status.is_success() => Ok(Answer::Done(())),
            StatusCode::UNPROCESSABLE_ENTITY => {
                let problem: Problem = response.json().await?;
                match &*problem.kind {
                    "urn:annals:problem:rejected" => Ok(Answer::Refused(problem.detail)),
                    _ => Err(Unanswered::Misunderstood(problem.detail)),
                }
            }
            // It has not begun.
            StatusCode::SERVICE_UNAVAILABLE | StatusCode::TOO_MANY_REQUESTS => {
                let seconds = response.headers().get("retry-after");
                let seconds = seconds.and_then(|value| value.to_str().ok()?.parse().ok());
                Err(Unanswered::Busy { retry_after: Duration::from_secs(seconds.unwrap_or(0)) })
            }
            status => Err(Unanswered::Status(status)),
        }
    }
}

fn put_off<R>(wait: Duration) -> Answer<R> {
    Answer::RetryAfter(wait.max(PUT_OFF) + SPREAD.mul_f64(rand::rng().random()))
}

/// What a service says when it does not do what it was asked, as far as it matters here.
#[derive(Debug, Deserialize)]
struct Problem {
    #[serde(rename = "type")]
    kind: String,
    detail: String,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
enum Unanswered {
    #[error("the service did not answer")]
    Transport(#[from] reqwest::Error),
    #[error("the service answered {0}")]
    Status(StatusCode),
    #[error("the service is busy")]
    Busy { retry_after: Duration },
    #[error("the service did not understand: {0}")]
    Misunderstood(String),
}
