//! How long it takes from the call of an append until its event is in the read model, at a steady 1,000
//! events per second.

use std::time::{Duration, Instant};

use annals::{Append, EventStore, ExpectedVersion, Position, StreamId, Worker};
use anyhow::{Context, Result};
use rand::{SeedableRng, rngs::SmallRng};
use serde_json::json;
use tokio::{
    sync::oneshot,
    task::{JoinHandle, JoinSet},
};
use tokio_util::sync::CancellationToken;

use super::{super::append_copy::events, BalanceRow, fill};
use crate::{
    contestant::About,
    measure::{Effort, Round, Summary, micros},
    report::{Entry, Side},
    server::{Server, connect},
};

const RATE: u32 = 1000;
const ACCOUNTS: usize = 1000;

pub(crate) async fn run(server: &Server, effort: Effort) -> Result<Entry> {
    let url = server.database("live_latency").await?;
    let store = EventStore::connect(&url).await?;
    let accounts = fill(&store, ACCOUNTS, 5).await?;
    server.checkpoint().await?;
    let stop = CancellationToken::new();
    let worker = Worker::new(&store).projection::<BalanceRow>();
    let working = tokio::spawn(worker.run_until(stop.clone()));
    let mut rounds = Vec::new();
    let time = effort.time * 3;
    // The first round warms up.
    for _ in 0..=effort.rounds {
        rounds.push(round(&store, &url, &accounts, RATE, time).await?);
    }
    stop.cancel();
    working.await??;
    let about = About {
        name: "annals",
        version: env!("CARGO_PKG_VERSION"),
        setup: "a worker with defaults in the process that appends; a row model with history",
    };
    let side = Side::of(about, Summary::of(&rounds[1..]));
    let mut entry = Entry::new("live_latency", "events/s", side, Vec::new());
    entry.add("latency_is", json!("from the call of the append until a query shows its event"));
    Ok(entry)
}

/// Appends so many events per second, one to each account in turn, and looks when they are in the read model.
pub(crate) async fn round(
    store: &EventStore,
    url: &str,
    accounts: &[uuid::Uuid],
    rate: u32,
    time: Duration,
) -> Result<Round> {
    let start = Instant::now();
    let (told, watching) = watch(url).await?;
    let mut appends = JoinSet::new();
    let count = (time.as_secs_f64() * f64::from(rate)) as u32;
    for n in 0..count {
        tokio::time::sleep_until((start + n * Duration::from_secs(1) / rate).into()).await;
        let (store, account) = (store.clone(), accounts[n as usize % accounts.len()]);
        appends.spawn(async move {
            let event = events(&mut SmallRng::seed_from_u64(n.into()), 1)?;
            let stream = StreamId::new("account", account)?;
            let called = Instant::now();
            let append = Append::to(stream, ExpectedVersion::Any, event);
            let position = store.append(append).await?.last_position;
            anyhow::Ok((position, called))
        });
    }
    let mut called = Vec::new();
    while let Some(appended) = appends.join_next().await {
        called.push(appended??);
    }
    let elapsed = start.elapsed();
    let last = called.iter().map(|(position, _)| *position).max().unwrap_or_default();
    // If nobody listens, the watch has failed and says so below.
    let _ = told.send(last);
    let seen = watching.await??;
    let latency = |(position, called): &(Position, Instant)| {
        let index = seen.partition_point(|(reached, _)| reached < position);
        seen.get(index).map(|(_, at)| micros(at.saturating_duration_since(*called)))
    };
    let latencies: Option<Vec<_>> = called.iter().map(latency).collect();
    let latencies = latencies.context("an event was never seen")?;
    Ok(Round { units: count.into(), elapsed, latencies, ..Round::default() })
}

/// What is seen: up to which position the read model has come, and when that was first seen.
type Seen = Vec<(Position, Instant)>;

/// Looks how far the read model is without pause, until it is told a position and has seen it.
async fn watch(url: &str) -> Result<(oneshot::Sender<Position>, JoinHandle<Result<Seen>>)> {
    let client = connect(url).await?;
    let reached = "select position from annals.checkpoints where name = 'projection:balances'";
    let reached = client.prepare(reached).await?;
    let (told, mut until) = oneshot::channel();
    let runtime = tokio::runtime::Handle::current();
    // On a thread of its own: the runtime's timers count whole milliseconds.
    let watching = tokio::task::spawn_blocking(move || {
        let (mut seen, mut last) = (Seen::new(), None);
        loop {
            let row = runtime.block_on(client.query_opt(&reached, &[]))?;
            let position = Position::new(row.map_or(0, |row| row.get(0)));
            if seen.last().is_none_or(|(before, _)| *before < position) {
                seen.push((position, Instant::now()));
            }
            last = last.or_else(|| until.try_recv().ok());
            if last.is_some_and(|last| position >= last) {
                return Ok(seen);
            }
            std::thread::sleep(Duration::from_micros(300));
        }
    });
    Ok((told, watching))
}
