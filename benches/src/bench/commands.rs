//! Commands, and commands among loads, beside the other crates.

use std::{sync::Arc, time::Duration};

use anyhow::{Context, Result};
use serde_json::json;

use crate::{
    client::Client,
    contestant::{self, Contestant},
    measure::{Effort, Round, Summary, drive, median},
    report::{Entry, Side},
    server::Server,
};

struct Running {
    contestant: Arc<dyn Contestant>,
    clients: Vec<Client>,
    rounds: Vec<Round>,
}

/// `clients` at once, each of whose steps loads an account in `loads` of ten cases and executes a
/// command in the others.
pub(crate) async fn run(
    name: &'static str,
    server: &Server,
    effort: Effort,
    clients: usize,
    loads: u32,
) -> Result<Entry> {
    let mut running = Vec::new();
    for contestant in contestant::all(server).await? {
        let contestant: Arc<dyn Contestant> = contestant.into();
        let clients = Client::many(&contestant, clients, loads);
        running.push(Running { contestant, clients, rounds: Vec::new() });
    }
    server.checkpoint().await?;
    for one in &mut running {
        one.work(effort.warm_up).await?;
    }
    let mut wal = Vec::new();
    for _ in 0..effort.rounds {
        for (index, one) in running.iter_mut().enumerate() {
            let before = server.wal_bytes().await?;
            let round = one.work(effort.time).await?;
            if index == 0 && loads == 0 && round.units > 0 {
                wal.push((server.wal_bytes().await? - before) as f64 / round.units as f64);
            }
            one.rounds.push(round);
        }
    }
    let mut sides = Vec::new();
    for one in &mut running {
        one.check().await?;
        sides.push(Side::of(one.contestant.about(), Summary::of(&one.rounds)));
    }
    let unit = if loads == 0 { "commands/s" } else { "operations/s" };
    let annals = sides.remove(0);
    let mut entry = Entry::new(name, unit, annals, sides);
    if loads == 0 {
        entry.add("wal_bytes_per_event", json!(median(&wal).round()));
    }
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
