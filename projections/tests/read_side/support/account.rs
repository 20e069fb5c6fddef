//! What is projected in slices: accounts, and reviews of them under the same keys.

use annals_eventstore::{Aggregate, Apply, Event, EventStore, Recorded};
use annals_projections::{Change, Project, ReadModel};
use rand::{Rng, rngs::StdRng};
use serde::{Deserialize, Serialize};

use super::ledger::append;

#[derive(Event, Serialize, Deserialize, Clone, Debug, PartialEq)]
pub(crate) enum AccountEvent {
    Moved {
        amount: i64,
    },
    /// Changes nothing.
    Noted,
    /// Its row goes; it may come back.
    Closed,
}

#[derive(Aggregate, Default)]
#[aggregate(category = "account", event = AccountEvent)]
pub(crate) struct Account;

impl Apply<AccountEvent> for Account {
    fn apply(&mut self, _: &AccountEvent) {}
}

#[derive(Event, Serialize, Deserialize, Clone, Debug, PartialEq)]
pub(crate) enum ReviewEvent {
    Passed,
}

/// A review has its account's key: its streams feed the accounts' rows.
#[derive(Aggregate, Default)]
#[aggregate(category = "review", event = ReviewEvent)]
pub(crate) struct Review;

impl Apply<ReviewEvent> for Review {
    fn apply(&mut self, _: &ReviewEvent) {}
}

/// A row that shows every event that is lost, repeated, or out of order.
#[derive(ReadModel, Clone, Debug, PartialEq)]
#[read_model(table = "balances", from(Account, Review), history, slices = 4)]
pub(crate) struct Balance {
    #[read_model(key)]
    pub(crate) account: String,
    pub(crate) total: i64,
    /// How many events were applied since the row began.
    pub(crate) events: i64,
    /// Their positions, in their order.
    pub(crate) trail: i64,
    pub(crate) reviews: i64,
}

impl Balance {
    fn of<E>(row: Option<Self>, event: &Recorded<E>) -> Self {
        let account = event.stream.key().to_owned();
        let begun = Self { account, total: 0, events: 0, trail: 0, reviews: 0 };
        let row = row.unwrap_or(begun);
        let trail = row.trail.wrapping_mul(31).wrapping_add(event.position.get());
        Self { events: row.events + 1, trail, ..row }
    }
}

impl Project<AccountEvent> for Balance {
    fn project(row: Option<Self>, event: &Recorded<AccountEvent>) -> Change<Self> {
        let row = Self::of(row, event);
        match event.event {
            AccountEvent::Moved { amount } => {
                Change::Set(Self { total: row.total + amount, ..row })
            }
            AccountEvent::Noted => Change::Keep,
            AccountEvent::Closed => Change::Delete,
        }
    }
}

impl Project<ReviewEvent> for Balance {
    fn project(row: Option<Self>, event: &Recorded<ReviewEvent>) -> Change<Self> {
        let row = Self::of(row, event);
        Change::Set(Self { reviews: row.reviews + 1, ..row })
    }
}

/// Keys in all slices.
pub(crate) const ACCOUNTS: u32 = 16;

pub(crate) fn account(number: u32) -> String {
    format!("account {number}")
}

/// Appends one to a few events to one stream.
pub(crate) async fn move_some(store: &EventStore, rng: &mut StdRng) {
    let key = account(rng.random_range(0..ACCOUNTS));
    if rng.random_ratio(1, 5) {
        append::<Review>(store, &key, [ReviewEvent::Passed]).await;
        return;
    }
    let event = |rng: &mut StdRng| match rng.random_range(0..10) {
        0 => AccountEvent::Closed,
        1 => AccountEvent::Noted,
        _ => AccountEvent::Moved { amount: rng.random_range(-5..50) },
    };
    let events: Vec<_> = (0..rng.random_range(1..4)).map(|_| event(rng)).collect();
    append::<Account>(store, &key, events).await;
}
