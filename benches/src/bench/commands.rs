//! Commands, and commands among loads, beside the other crates.

use std::{sync::Arc, time::Duration};

use anyhow::{Context, Result};
use serde_json::json;

use crate::{
    bench::{
        How,
        rounds::{Rounds, measure},
    },
    client::Client,
    contestant::{self, Alone, Annals, Contestant},
    measure::{Round, drive, median},
    report::Entry,
    server::Server,
};

struct Running {
    contestant: Arc<dyn Contestant>,
    clients: Vec<Client>,
    rounds: Rounds,
}

/// `clients` at once, each of whose steps loads an account in `loads` of ten cases and executes a
/// command in the others.
pub(crate) async fn run(
    name: &'static str,
    server: &Server,
    how: How,
    clients: usize,
    loads: u32,
) -> Result<Entry> {
    let effort = how.effort;
    let run = |contestant: Box<dyn Contestant>| {
        let contestant: Arc<dyn Contestant> = contestant.into();
        let clients = Client::many(&contestant, clients, loads);
        Running { contestant, clients, rounds: Rounds::default() }
    };
    let contestants = contestant::all(server, how.alone).await?;
    let mut running: Vec<_> = contestants.into_iter().map(run).collect();
    // A client commands the accounts of its own, so the cache nearly always has them.
    let has_uncached = loads == 0 && how.alone == Alone::No;
    if has_uncached {
        let url = server.database("without_cache").await?;
        running.push(run(Box::new(Annals::without_cache(&url).await?)));
    }
    server.checkpoint().await?;
    for one in &mut running {
        one.work(effort.warm_up).await?;
    }
    let mut wal = Vec::new();
    let mut statements = 0;
    for _ in 0..effort.rounds {
        for (index, one) in running.iter_mut().enumerate() {
            let before = server.wal_bytes().await?;
            let calls = server.statements("annals").await?;
            let measured = measure(server, one.work(effort.time)).await?;
            let units = measured.0.units;
            if index == 0 && loads == 0 && units > 0 {
                wal.push((server.wal_bytes().await? - before) as f64 / units as f64);
            }
            if index == 0
                && let Some(calls) = calls
            {
                statements += server.statements("annals").await?.unwrap_or(calls) - calls;
            }
            one.rounds.add(measured);
        }
    }
    let mut sides = Vec::new();
    for one in &mut running {
        one.check().await?;
        sides.push(one.rounds.side(one.contestant.about()));
    }
    let unit = if loads == 0 { "commands/s" } else { "operations/s" };
    let units: u64 = running[0].rounds.rounds.iter().map(|round| round.units).sum();
    let uncached = if has_uncached { sides.pop() } else { None };
    let annals = sides.remove(0);
    let mut entry = Entry::new(name, unit, annals, sides);
    if let Some(uncached) = uncached {
        entry.beside("annals_without_cache", uncached);
    }
    if loads == 0 {
        entry.add("wal_bytes_per_event", json!(median(&wal).round()));
    }
    let statements = match server.environment.pg_stat_statements {
        true => json!((statements as f64 / units as f64 * 1000.0).round() / 1000.0),
        false => json!("not available: the server has no pg_stat_statements"),
    };
    entry.add("statements_per_command", statements);
    Ok(entry)
}

impl Running {
    async fn work(&mut self, time: Duration) -> Result<Round> {
        let failed = || format!("{} failed", self.contestant.about().name);
        drive(&mut self.clients, time).await.with_context(failed)
    }

    /// Looks whether some of what was acknowledged is there.
    async fn check(&mut self) -> Result<()> {
        for client in self.clients.iter_mut().take(16) {
            client.load().await?;
        }
        Ok(())
    }
}
