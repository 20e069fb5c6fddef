//! What travellers do beside booking, and what they must be told then.
//!
//! A few ask for what only some of them need: to read what they wrote, to see what was, to change nothing that somebody
//! else has changed. Each knows what the answer must be, and says so if it is another.

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use crate::{
    booking::RequestBooking,
    shop::{Answer, Failure, Shop},
};

/// What a traveller does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Habit {
    Plain,
    /// Waits for the booking to be shown: `Prefer: wait`.
    Waits,
    /// Asks for an answer that is as new as the booking: `at_least`.
    ReadsBack,
    /// Asks what was when the booking was made, and just before: `as_of`.
    LooksBack,
    /// Cancels, if the booking is what it was: `If-Match`.
    CancelsUnchanged,
}

impl Habit {
    /// One traveller in six has one.
    pub(crate) fn of(number: u32) -> Self {
        match number % 24 {
            5 => Self::Waits,
            11 => Self::ReadsBack,
            17 => Self::LooksBack,
            23 => Self::CancelsUnchanged,
            _ => Self::Plain,
        }
    }

    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Plain => "only booked",
            Self::Waits => "waited for it",
            Self::ReadsBack => "read it back",
            Self::LooksBack => "looked back",
            Self::CancelsUnchanged => "cancelled if unchanged",
        }
    }
}

/// What the gateway said of a command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Done {
    pub(crate) version: i64,
    pub(crate) position: i64,
    /// Whether read models show it, if that was asked for.
    pub(crate) visible: Option<bool>,
}

impl Done {
    pub(crate) fn of(answer: &Answer) -> Option<Self> {
        let body = &answer.body;
        Some(Self {
            version: body["version"].as_i64()?,
            position: body["position"].as_i64()?,
            visible: body["visible"].as_bool(),
        })
    }
}

/// Does it. What is wrong with an answer is the result.
pub(crate) async fn pursue(
    habit: Habit,
    shop: &Shop,
    booking: &RequestBooking,
    done: &Done,
) -> Result<Option<String>, Failure> {
    let Done { position, visible, .. } = *done;
    let look = async |query: String, headers: &[(&'static str, &str)]| {
        let target = format!("/bookings/{}{query}", booking.booking);
        shop.persists(Method::GET, &target, headers, None).await
    };
    let at_least = async || look(format!("?at_least={position}"), &[("prefer", "wait=2")]).await;
    let wrong = match habit {
        Habit::Plain => None,
        Habit::Waits => match visible {
            Some(true) => is_shown(booking, &look(String::new(), &[]).await?),
            // It was not shown in time, and it may be late while a process is down.
            Some(false) => is_shown(booking, &at_least().await?),
            None => Some("it was not said whether the booking is shown".to_owned()),
        },
        Habit::ReadsBack => is_shown(booking, &at_least().await?),
        Habit::LooksBack => {
            let then = format!("?as_of=position:{position}&at_least={position}");
            let then = look(then, &[("prefer", "wait=2")]).await?;
            let before = look(format!("?as_of=position:{}", position - 1), &[]).await?;
            is_shown(booking, &then)
                .or_else(|| (then.body["status"] != "requested").then(|| told(&then)))
                .or_else(|| (before.status != StatusCode::NOT_FOUND).then(|| told(&before)))
        }
        Habit::CancelsUnchanged => cancels_unchanged(shop, booking, done).await?,
    };
    Ok(wrong.map(|wrong| format!("who {}: {}: {wrong}", habit.name(), booking.booking)))
}

/// What is wrong with a row that is to be of this booking.
fn is_shown(booking: &RequestBooking, answer: &Answer) -> Option<String> {
    let RequestBooking { booking, destination, travellers } = booking;
    let shown = ["booking", "destination", "travellers"].map(|column| &answer.body[column]);
    let is_it = shown == [&json!(booking), &json!(destination), &json!(travellers)];
    (!answer.status.is_success() || !is_it).then(|| told(answer))
}

async fn cancels_unchanged(
    shop: &Shop,
    booking: &RequestBooking,
    done: &Done,
) -> Result<Option<String>, Failure> {
    let target = format!("/bookings/{}/cancellation", booking.booking);
    let cancel = async |version: i64, key: &str| {
        let (tag, body) = (format!("\"{version}\""), Value::Object(Default::default()));
        let headers = [("if-match", &*tag), ("idempotency-key", key)];
        shop.persists(Method::POST, &target, &headers, Some(&body)).await
    };
    // A version that no booking comes to.
    let key = booking.booking.to_string();
    let never = cancel(done.version + 100, &format!("{key} never")).await?;
    if never.status != StatusCode::PRECONDITION_FAILED {
        return Ok(Some(told(&never)));
    }
    let answer = cancel(done.version, &format!("{key} unchanged")).await?;
    let version = answer.body["version"].as_i64();
    let is_right = match answer.status {
        StatusCode::OK => version == Some(done.version + 1),
        // The saga was faster.
        StatusCode::PRECONDITION_FAILED => version > Some(done.version),
        _ => false,
    };
    Ok((!is_right).then(|| told(&answer)))
}

fn told(answer: &Answer) -> String {
    format!("the answer was {}: {}", answer.status, answer.body)
}

#[cfg(test)]
mod tests {
    use reqwest::header::HeaderMap;
    use uuid::Uuid;

    use super::*;

    #[test]
    fn every_habit_is_somebodys_and_most_have_none() {
        let of = |habit| (0..240).filter(|number| Habit::of(*number) == habit).count();
        let habits =
            [Habit::Waits, Habit::ReadsBack, Habit::LooksBack, Habit::CancelsUnchanged].map(of);
        assert_eq!((habits, of(Habit::Plain)), ([10; 4], 200));
    }

    #[test]
    fn a_row_is_of_a_booking_or_it_is_told() {
        let id = Uuid::from_u128(7);
        let booking =
            RequestBooking { booking: id, destination: "Bergen".to_owned(), travellers: 2 };
        let answer = |status, travellers| Answer {
            status,
            headers: HeaderMap::new(),
            body: json!({ "booking": id, "destination": "Bergen", "travellers": travellers }),
        };
        assert_eq!(is_shown(&booking, &answer(StatusCode::OK, 2)), None);
        assert!(is_shown(&booking, &answer(StatusCode::OK, 3)).is_some());
        assert!(is_shown(&booking, &answer(StatusCode::NOT_FOUND, 2)).is_some());
    }
}
