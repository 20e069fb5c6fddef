//! Rebuilding a read model with history, against replaying the same log; and in two shards against one.

use std::{process::Stdio, time::Instant};

use annals::{EventStore, Position, Rebuild};
use anyhow::{Context, Result, ensure};
use futures::TryStreamExt;
use serde_json::{Value, json};
use tokio::process::Command;

use super::{BalanceRow, fill};
use crate::{
    bank::AccountEvent,
    contestant::About,
    measure::{Effort, Round, Summary},
    report::{Entry, Side},
    server::{Server, connect},
};

/// Events of one account.
const EVENTS: usize = 10;
/// How many times as many events, and how many times as many rows, are rebuilt to see what memory grows with.
const TIMES: usize = 10;

/// A store with so many accounts in it, and so many events of each.
async fn store_of(
    server: &Server,
    name: &str,
    accounts: usize,
    events: usize,
) -> Result<(EventStore, String)> {
    let url = server.database(name).await?;
    let store = EventStore::connect(&url).await?;
    fill(&store, accounts, events).await?;
    let client = connect(&url).await?;
    client.batch_execute("vacuum analyze annals.events, annals.streams").await?;
    server.checkpoint().await?;
    Ok((store, url))
}

/// `rebuild`: all of it, from nothing to tables with their indexes, against a replay that only decodes.
pub(crate) async fn run(server: &Server, effort: Effort) -> Result<Entry> {
    let accounts = usize::try_from(effort.replayed)? / EVENTS;
    let (store, url) = store_of(server, "rebuild", accounts, EVENTS).await?;
    let (mut rebuilt, mut replayed) = (Vec::new(), Vec::new());
    // The first round warms up.
    for _ in 0..=effort.rounds.min(4) {
        replayed.push(replay(&store, effort.replayed).await?);
        rebuilt.push(rebuild(&store, effort.replayed, None).await?);
    }
    let side = |about, rounds: &[Round]| Side::of(about, Summary::of(&rounds[1..]));
    let setup = "Rebuild::build with history: rows, versions, indexes; then discarded";
    let annals = About { name: "annals, rebuild", version: env!("CARGO_PKG_VERSION"), setup };
    let setup = "EventStore::read_all, each event decoded to its type";
    let other = About { name: "annals, replay", version: env!("CARGO_PKG_VERSION"), setup };
    let others = vec![side(other, &replayed)];
    let mut entry = Entry::new("rebuild", "events/s", side(annals, &rebuilt), others);
    // Memory is a process's, so each store has one of its own. Rows stay in it, events do not.
    let few = accounts / TIMES;
    let (_, small) = store_of(server, "rebuild_small", few, EVENTS).await?;
    let (_, long) = store_of(server, "rebuild_long", few, EVENTS * TIMES).await?;
    let stores = [(few, EVENTS, small), (few, EVENTS * TIMES, long), (accounts, EVENTS, url)];
    let mut peaks = Vec::new();
    for (rows, each, url) in stores {
        let mib = peak_of(&url).await?;
        peaks.push(json!({ "rows": rows, "events": rows * each, "mib": mib }));
    }
    entry.add("peak_rss", Value::Array(peaks));
    Ok(entry)
}

/// `rebuild_slices`: rows folded in two parts at the same time, against one.
pub(crate) async fn slices(server: &Server, effort: Effort) -> Result<Entry> {
    let accounts = usize::try_from(effort.replayed)? / EVENTS;
    let (store, _) = store_of(server, "rebuild_slices", accounts, EVENTS).await?;
    let (mut two, mut one) = (Vec::new(), Vec::new());
    for _ in 0..=effort.rounds.min(4) {
        one.push(rebuild(&store, effort.replayed, Some(1)).await?);
        two.push(rebuild(&store, effort.replayed, Some(2)).await?);
    }
    let side = |name, rounds: &[Round]| {
        let setup = "Rebuild::build with history, then discarded";
        let about = About { name, version: env!("CARGO_PKG_VERSION"), setup };
        Side::of(about, Summary::of(&rounds[1..]))
    };
    let others = vec![side("annals, 1 shard", &one)];
    Ok(Entry::new("rebuild_slices", "events/s", side("annals, 2 shards", &two), others))
}

async fn rebuild(store: &EventStore, events: u64, shards: Option<usize>) -> Result<Round> {
    let rebuild = Rebuild::<BalanceRow>::of(store);
    let rebuild = shards.into_iter().fold(rebuild, Rebuild::shards);
    let start = Instant::now();
    let built = rebuild.build().await?;
    let elapsed = start.elapsed();
    ensure!(built.events == events, "{} of {events} events were folded", built.events);
    rebuild.discard().await?;
    Ok(Round { units: events, elapsed, ..Round::default() })
}

async fn replay(store: &EventStore, expected: u64) -> Result<Round> {
    let start = Instant::now();
    let mut events = std::pin::pin!(store.read_all(Position::START));
    let mut units = 0;
    while let Some(event) = events.try_next().await? {
        std::hint::black_box(event.decode::<AccountEvent>()?);
        units += 1;
    }
    ensure!(units == expected, "{units} of {expected} events were read");
    Ok(Round { units, elapsed: start.elapsed(), ..Round::default() })
}

/// The most memory that a process of its own takes for a rebuild, in MiB.
async fn peak_of(url: &str) -> Result<u64> {
    let child = Command::new(std::env::current_exe()?)
        .args(["--rebuild-of", url])
        .stderr(Stdio::inherit())
        .output()
        .await?;
    ensure!(child.status.success(), "a process that rebuilds failed: {}", child.status);
    Ok(String::from_utf8(child.stdout)?.trim().parse()?)
}

/// What that process does.
pub(crate) async fn child(url: &str) -> Result<()> {
    let store = EventStore::connect(url).await?;
    let rebuild = Rebuild::<BalanceRow>::of(&store);
    rebuild.build().await?;
    rebuild.discard().await?;
    let status = std::fs::read_to_string("/proc/self/status").context("no /proc/self/status")?;
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kib: u64 = peak
        .and_then(|peak| peak.split_whitespace().next()?.parse().ok())
        .context("the system does not tell the peak of memory")?;
    println!("{}", kib / 1024);
    Ok(())
}
