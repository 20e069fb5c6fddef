//! Travellers: so many a second, however long the answers take, and persistent ones.
//!
//! A request that is not answered, or is put off, is sent again under the same idempotency key until it is answered: so
//! what the client counts as accepted is one booking, however often it asked.

use std::{
    future::Future,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use backon::{ExponentialBuilder, Retryable};
use rand::{Rng, seq::IndexedRandom};
use reqwest::{Client, StatusCode, Url};
use serde::Serialize;
use tokio::task::{JoinError, JoinSet};
use uuid::Uuid;

use crate::{
    args::Pace,
    booking::{CancelBooking, RequestBooking},
};

const DESTINATIONS: [&str; 6] = ["Bergen", "Lisbon", "Ljubljana", "Marrakesh", "Naples", "Tbilisi"];
/// How long to wait for an answer before asking again.
const PATIENCE: Duration = Duration::from_secs(5);
/// The share of travellers who send their request twice at the same time, and of those who cancel.
const IMPATIENT: f64 = 0.02;
const FICKLE: f64 = 0.02;

/// What came of the load.
#[derive(Debug, Default)]
pub(crate) struct Sent {
    /// The bookings that were accepted.
    pub(crate) accepted: Vec<Uuid>,
    /// How many requests were sent again.
    pub(crate) again: u64,
    /// Why the others were not.
    pub(crate) failed: Vec<String>,
    /// How long it took, until the last answer.
    pub(crate) took: Duration,
}

/// Sends bookings at this pace, and waits for all answers. `accepted` is told how many there are by now.
pub(crate) async fn run(
    gateway: &Url,
    pace: Pace,
    accepted: impl Fn(usize),
) -> anyhow::Result<Sent> {
    let client = Client::builder().timeout(PATIENCE).build()?;
    let traveller = Traveller { client, gateway: gateway.clone(), again: Arc::default() };
    let (begun, started) = (Instant::now(), tokio::time::Instant::now());
    let mut under_way = JoinSet::new();
    let mut sent = Sent::default();
    let take = |sent: &mut Sent, outcome: Result<Result<Uuid, Failure>, JoinError>| {
        match outcome? {
            Ok(booking) => sent.accepted.push(booking),
            Err(failure) => sent.failed.push(chain(&failure)),
        }
        accepted(sent.accepted.len());
        anyhow::Ok(())
    };
    for number in 0..pace.rate * pace.seconds {
        let at = Duration::from_secs_f64(f64::from(number) / f64::from(pace.rate));
        tokio::time::sleep_until(started + at).await;
        let traveller = traveller.clone();
        under_way.spawn(async move { traveller.books().await });
        while let Some(outcome) = under_way.try_join_next() {
            take(&mut sent, outcome)?;
        }
    }
    while let Some(outcome) = under_way.join_next().await {
        take(&mut sent, outcome)?;
    }
    sent.again = traveller.again.load(Ordering::Relaxed);
    sent.took = begun.elapsed();
    Ok(sent)
}

#[derive(Clone)]
struct Traveller {
    client: Client,
    gateway: Url,
    /// How many requests were sent again.
    again: Arc<AtomicU64>,
}

impl Traveller {
    async fn books(&self) -> Result<Uuid, Failure> {
        let booking = Uuid::now_v7();
        let request = RequestBooking {
            booking,
            destination: DESTINATIONS.choose(&mut rand::rng()).unwrap_or(&"Bergen").to_string(),
            travellers: travellers(rand::rng().random()),
        };
        let key = booking.to_string();
        let send = || self.send("/bookings", &key, &request);
        if rand::rng().random_bool(IMPATIENT) {
            let (first, second) = tokio::join!(self.persists(send), self.persists(send));
            first.and(second)?;
        } else {
            self.persists(send).await?;
        }
        if rand::rng().random_bool(FICKLE) {
            self.cancels(booking).await?;
        }
        Ok(booking)
    }

    /// Cancels a booking a little later, if it is not confirmed by then.
    async fn cancels(&self, booking: Uuid) -> Result<(), Failure> {
        let later = Duration::from_millis(rand::rng().random_range(0..500));
        tokio::time::sleep(later).await;
        let path = format!("/bookings/{booking}/cancellation");
        let key = format!("{booking} cancelled");
        let command = CancelBooking { booking };
        let cancelled = self.persists(|| self.send(&path, &key, &command)).await;
        match cancelled {
            Err(Failure::Answer { status: StatusCode::UNPROCESSABLE_ENTITY, .. }) => Ok(()),
            other => other,
        }
    }

    /// Tries until there is an answer.
    async fn persists<F>(&self, send: impl Fn() -> F) -> Result<(), Failure>
    where
        F: Future<Output = Result<(), Failure>>,
    {
        let delays = ExponentialBuilder::default()
            .with_min_delay(Duration::from_millis(50))
            .with_max_delay(Duration::from_secs(1))
            .with_max_times(100)
            .with_jitter();
        send.retry(delays)
            .when(Failure::may_pass)
            .notify(|_, _| {
                self.again.fetch_add(1, Ordering::Relaxed);
            })
            .await
    }

    async fn send(&self, path: &str, key: &str, body: &impl Serialize) -> Result<(), Failure> {
        let mut url = self.gateway.clone();
        url.set_path(path);
        let request = self.client.post(url).header("idempotency-key", key).json(body);
        let response = request.send().await?;
        match response.status() {
            status if status.is_success() => Ok(()),
            status => Err(Failure::Answer { status, text: response.text().await? }),
        }
    }
}

/// How many travel together, for a number that is drawn between 0 and 1. Six are too many for a car, eight for a hotel,
/// ten for a flight.
fn travellers(drawn: f64) -> u32 {
    match drawn {
        drawn if drawn < 0.94 => 1 + (drawn / 0.94 * 4.0) as u32,
        drawn if drawn < 0.97 => 6,
        drawn if drawn < 0.99 => 8,
        _ => 10,
    }
}

/// Why a request came to nothing.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error("there was no answer")]
    Transport(#[from] reqwest::Error),
    #[error("the answer was {status}: {text}")]
    Answer { status: StatusCode, text: String },
}

impl Failure {
    fn may_pass(&self) -> bool {
        match self {
            Self::Transport(_) => true,
            Self::Answer { status, .. } => {
                let later = [StatusCode::TOO_MANY_REQUESTS, StatusCode::CONFLICT];
                status.is_server_error() || later.contains(status)
            }
        }
    }
}

fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let causes = std::iter::successors(Some(error), |error| error.source());
    causes.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kind::Kind;

    #[test]
    fn some_parties_are_too_large_for_each_service() {
        let drawn = (0..1000).map(|number| travellers(f64::from(number) / 1000.0));
        let drawn: Vec<_> = drawn.collect();
        assert!((1..=4).all(|number| drawn.contains(&number)), "{drawn:?}");
        for kind in Kind::ALL {
            let refused = drawn.iter().filter(|number| **number > kind.most_travellers()).count();
            assert!((10..=70).contains(&refused), "{kind} refuses {refused} of 1000");
        }
    }
}
