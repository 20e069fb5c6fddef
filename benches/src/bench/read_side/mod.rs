//! The read side: rebuilding, following, and asking for the past.

pub(crate) mod as_of;
pub(crate) mod live_latency;
pub(crate) mod rebuild;

use annals::{Append, Change, EventStore, ExpectedVersion, Project, ReadModel, Recorded, StreamId};
use anyhow::Result;
use futures::{StreamExt, TryStreamExt, stream};
use rand::{SeedableRng, rngs::SmallRng};
use uuid::Uuid;

use super::append_copy::events;
use crate::{bank::AccountEvent, contestant::annals::Account};

/// Events of one append.
const APPEND: usize = 5;

/// A row for each account, with history.
#[derive(ReadModel, Clone, Debug, PartialEq)]
#[read_model(table = "balances", from(Account), history)]
pub(crate) struct BalanceRow {
    #[read_model(key)]
    pub(crate) account: Uuid,
    pub(crate) balance: i64,
    pub(crate) movements: i64,
    pub(crate) reference: String,
}

impl Project<AccountEvent> for BalanceRow {
    fn project(row: Option<Self>, event: &Recorded<AccountEvent>) -> Change<Self> {
        let (before, movements) = row.map_or((0, 0), |row| (row.balance, row.movements));
        let (balance, reference) = match &event.event {
            AccountEvent::Opened { owner, deposit } => (*deposit, owner),
            AccountEvent::Deposited { amount, reference } => (before + amount, reference),
            AccountEvent::Withdrawn { amount, reference } => (before - amount, reference),
        };
        let Ok(account) = event.stream.key().parse() else { return Change::Keep };
        let (movements, reference) = (movements + 1, reference.clone());
        Change::Set(Self { account, balance, movements, reference })
    }
}

/// Appends events to accounts, so many to each, a few at a time in turn: their histories are interleaved.
/// Returns the accounts.
pub(crate) async fn fill(
    store: &EventStore,
    accounts: usize,
    events_of_each: usize,
) -> Result<Vec<Uuid>> {
    let accounts: Vec<_> = std::iter::repeat_with(Uuid::now_v7).take(accounts).collect();
    for round in 0..events_of_each / APPEND {
        let append = |(seed, account): (usize, &Uuid)| {
            let (seed, account) = ((round * 1_000_003 + seed) as u64, *account);
            async move {
                let events = events(&mut SmallRng::seed_from_u64(seed), APPEND)?;
                let stream = StreamId::new("account", account)?;
                store.append(Append::to(stream, ExpectedVersion::Any, events)).await?;
                anyhow::Ok(())
            }
        };
        let appends = stream::iter(accounts.iter().enumerate()).map(append);
        appends.buffer_unordered(512).try_collect::<()>().await?;
    }
    Ok(accounts)
}
