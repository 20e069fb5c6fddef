//! Travellers: so many a second, however long the answers take, and persistent ones.
//!
//! A request that is not answered, or is put off, is sent again under the same idempotency key until it is answered: so
//! what the client counts as accepted is one booking, however often it asked. Some ask for more: see `habits.rs`.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use rand::{Rng, seq::IndexedRandom};
use reqwest::{Method, StatusCode};
use serde::Serialize;
use tokio::task::{JoinError, JoinSet};
use uuid::Uuid;

use crate::{
    args::Pace,
    booking::{CancelBooking, RequestBooking},
    follower::{Follower, Seen},
    habits::{self, Done, Habit},
    shop::{Answer, Failure, Shop},
};

const DESTINATIONS: [&str; 6] = ["Bergen", "Lisbon", "Ljubljana", "Marrakesh", "Naples", "Tbilisi"];
/// The share of travellers who send their request twice at the same time, and of those who cancel.
const IMPATIENT: f64 = 0.02;
const FICKLE: f64 = 0.02;

/// What came of the load.
#[derive(Debug, Default)]
pub(crate) struct Sent {
    /// The bookings that were accepted.
    pub(crate) accepted: Vec<Uuid>,
    /// How many had which habit.
    pub(crate) habits: BTreeMap<Habit, u64>,
    /// How many requests were sent again.
    pub(crate) again: u64,
    /// Why the others were not.
    pub(crate) failed: Vec<String>,
    /// Answers that were not what they must be.
    pub(crate) wrong: Vec<String>,
    /// What a follower of the live updates saw.
    pub(crate) seen: Seen,
    /// How long it took, until the last answer.
    pub(crate) took: Duration,
}

/// A traveller's booking, and how it went.
struct Booked {
    booking: Uuid,
    habit: Habit,
    wrong: Option<String>,
}

/// Sends bookings at this pace, and waits for all answers. `accepted` is told how many there are by now.
pub(crate) async fn run(
    shop: Shop,
    follower: Follower,
    pace: Pace,
    accepted: impl Fn(usize),
) -> anyhow::Result<Sent> {
    let (begun, started) = (Instant::now(), tokio::time::Instant::now());
    let mut under_way = JoinSet::new();
    let mut sent = Sent::default();
    let take = |sent: &mut Sent, outcome: Result<Result<Booked, Failure>, JoinError>| {
        match outcome? {
            Ok(Booked { booking, habit, wrong }) => {
                sent.accepted.push(booking);
                *sent.habits.entry(habit).or_default() += 1;
                sent.wrong.extend(wrong);
            }
            Err(failure) => sent.failed.push(with_causes(failure)),
        }
        accepted(sent.accepted.len());
        anyhow::Ok(())
    };
    for number in 0..pace.rate * pace.seconds {
        let at = Duration::from_secs_f64(f64::from(number) / f64::from(pace.rate));
        tokio::time::sleep_until(started + at).await;
        let shop = shop.clone();
        under_way.spawn(async move { books(&shop, Habit::of(number)).await });
        while let Some(outcome) = under_way.try_join_next() {
            take(&mut sent, outcome)?;
        }
    }
    while let Some(outcome) = under_way.join_next().await {
        take(&mut sent, outcome)?;
    }
    sent.again = shop.again();
    sent.took = begun.elapsed();
    sent.seen = follower.finish(&sent.accepted).await;
    sent.wrong.append(&mut sent.seen.wrong);
    Ok(sent)
}

async fn books(shop: &Shop, habit: Habit) -> Result<Booked, Failure> {
    let booking = Uuid::now_v7();
    let request = RequestBooking {
        booking,
        destination: DESTINATIONS.choose(&mut rand::rng()).unwrap_or(&"Bergen").to_string(),
        travellers: travellers(rand::rng().random()),
    };
    let key = booking.to_string();
    let mut headers = vec![("idempotency-key", &*key)];
    if habit == Habit::Waits {
        headers.push(("prefer", "wait=2"));
    }
    let send = || post(shop, "/bookings", &headers, &request);
    let is_impatient = rand::rng().random_bool(IMPATIENT);
    let (answer, twin) = match is_impatient {
        true => tokio::try_join!(send(), async { send().await.map(Some) })?,
        false => (send().await?, None),
    };
    let done = match (answer.status.is_success(), Done::of(&answer)) {
        (true, Some(done)) => done,
        _ => return Err(Failure::PutOff { status: answer.status, body: answer.body }),
    };
    let mut wrong = twin
        .filter(|twin| Done::of(twin).is_none_or(|twin| twin.position != done.position))
        .map(|twin| format!("who asked twice was told {} and {}", answer.body, twin.body));
    match habits::pursue(habit, shop, &request, &done).await {
        Ok(otherwise) => wrong = wrong.or(otherwise),
        // The booking is accepted all the same.
        Err(failure) => wrong = Some(format!("who {}: {}", habit.name(), with_causes(failure))),
    }
    if rand::rng().random_bool(FICKLE) {
        cancels(shop, booking).await?;
    }
    Ok(Booked { booking, habit, wrong })
}

/// Cancels a booking a little later, if it is not confirmed by then.
async fn cancels(shop: &Shop, booking: Uuid) -> Result<(), Failure> {
    let later = Duration::from_millis(rand::rng().random_range(0..500));
    tokio::time::sleep(later).await;
    let path = format!("/bookings/{booking}/cancellation");
    let key = format!("{booking} cancelled");
    let answer =
        post(shop, &path, &[("idempotency-key", &*key)], &CancelBooking { booking }).await?;
    match answer.status {
        StatusCode::UNPROCESSABLE_ENTITY => Ok(()),
        status if status.is_success() => Ok(()),
        status => Err(Failure::PutOff { status, body: answer.body }),
    }
}

fn with_causes(failure: Failure) -> String {
    format!("{:#}", anyhow::Error::from(failure))
}

async fn post(
    shop: &Shop,
    path: &str,
    headers: &[(&'static str, &str)],
    body: &impl Serialize,
) -> Result<Answer, Failure> {
    let body = serde_json::to_value(body)?;
    shop.persists(Method::POST, path, headers, Some(&body)).await
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
