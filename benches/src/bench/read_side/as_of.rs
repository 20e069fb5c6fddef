//! Asking for the past, against asking for the present: one row, and a whole table.

use annals::{AsOf, EventStore, Position, QueryReadModels, Rebuild};
use anyhow::{Context, Result, ensure};
use futures::TryStreamExt;
use rand::{Rng, SeedableRng, rngs::SmallRng};
use serde_json::json;
use uuid::Uuid;

use super::{BalanceRow, fill};
use crate::{
    contestant::About,
    measure::{Effort, Round, Summary, Worker, drive},
    report::{Entry, Side},
    server::{Server, connect},
};

/// Versions of each row.
const VERSIONS: usize = 50;
const CLIENTS: usize = 4;

/// What one asks for.
#[derive(Clone, Copy)]
enum Asked {
    Point,
    Table,
}

/// `as_of_point`: the row of one key.
pub(crate) async fn point(server: &Server, effort: Effort) -> Result<Entry> {
    run("as_of_point", "queries/s", Asked::Point, server, effort).await
}

/// `as_of_table`: all rows.
pub(crate) async fn table(server: &Server, effort: Effort) -> Result<Entry> {
    run("as_of_table", "rows/s", Asked::Table, server, effort).await
}

async fn run(
    name: &'static str,
    unit: &'static str,
    asked: Asked,
    server: &Server,
    effort: Effort,
) -> Result<Entry> {
    let url = server.database(name).await?;
    let store = EventStore::connect(&url).await?;
    let rows = usize::try_from(effort.replayed)? / VERSIONS;
    let accounts = fill(&store, rows, VERSIONS).await?;
    Rebuild::<BalanceRow>::of(&store).run().await?;
    let client = connect(&url).await?;
    client.batch_execute("vacuum analyze balances, balances_history").await?;
    server.checkpoint().await?;

    let end = store.safe_position().await?.get();
    // All accounts are there after a fifth of the log.
    let moments = [None, Some(end), Some(end / 2), Some(end / 5)];
    let mut all: Vec<_> = moments
        .iter()
        .map(|at| {
            let at = at.map(Position::new);
            let asking = |seed| Asking::new(&store, &accounts, asked, at, seed);
            ((0..CLIENTS as u64).map(asking).collect::<Vec<_>>(), Vec::<Round>::new())
        })
        .collect();
    for (askers, _) in &mut all {
        drive(askers, effort.warm_up).await?;
    }
    for _ in 0..effort.rounds {
        for (askers, rounds) in &mut all {
            rounds.push(drive(askers, effort.time / 2).await?);
        }
    }
    let mut summaries = all.iter().map(|(_, rounds)| Summary::of(rounds));
    let mut next = || summaries.next().context("a moment was not measured");
    let (plain, now, middle, early) = (next()?, next()?, next()?, next()?);
    let about = |name, setup| About { name, version: env!("CARGO_PKG_VERSION"), setup };
    let plain = Side::of(about("annals, plain", "the same query without as_of"), plain);
    let as_of = about("annals, as of the end", "as_of(AsOf::Position(..)) of the end of the log");
    let mut entry = Entry::new(name, unit, Side::of(as_of, now), vec![plain]);
    let older = json!({
        "rows": rows,
        "versions": rows * VERSIONS,
        "as_of_the_middle": middle.json(),
        "as_of_a_fifth": early.json(),
    });
    entry.add("older_moments", older);
    Ok(entry)
}

/// Asks again and again, as of one moment.
struct Asking {
    store: EventStore,
    accounts: Vec<Uuid>,
    asked: Asked,
    at: Option<Position>,
    random: SmallRng,
}

impl Asking {
    fn new(
        store: &EventStore,
        accounts: &[Uuid],
        asked: Asked,
        at: Option<Position>,
        seed: u64,
    ) -> Self {
        let (store, accounts) = (store.clone(), accounts.to_vec());
        Self { store, accounts, asked, at, random: SmallRng::seed_from_u64(seed) }
    }
}

impl Worker for Asking {
    async fn step(&mut self) -> Result<u64> {
        let query = self.store.query::<BalanceRow>();
        let query = match self.at {
            Some(at) => query.as_of(AsOf::Position(at)),
            None => query,
        };
        match self.asked {
            Asked::Point => {
                let account = self.accounts[self.random.random_range(0..self.accounts.len())];
                let row = query.get(&account).await?;
                ensure!(row.is_some_and(|row| row.account == account), "the row is not there");
                Ok(1)
            }
            Asked::Table => {
                let mut rows = std::pin::pin!(query.rows().await?);
                let mut count = 0;
                while rows.try_next().await?.is_some() {
                    count += 1;
                }
                let expected = self.accounts.len() as u64;
                ensure!(count == expected, "{count} rows came, and {expected} are there");
                Ok(count)
            }
        }
    }
}
