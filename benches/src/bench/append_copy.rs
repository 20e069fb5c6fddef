//! Appends of five events, many at once, against COPY of the same rows into the same table.

use std::time::Duration;

use annals::{Append, EventStore, ExpectedVersion, NewEvent, StreamId, Version};
use anyhow::Result;
use rand::{Rng, SeedableRng, rngs::SmallRng};
use serde_json::json;
use tokio_postgres::Client;
use uuid::Uuid;

use super::{
    copy::Target,
    rounds::{Rounds, measure},
};
use crate::{
    bank::AccountEvent,
    contestant::About,
    measure::{Effort, Round, Worker, drive, median},
    report::Entry,
    server::{Server, connect},
};

const APPENDERS: usize = 512;
const EVENTS: usize = 5;
/// A stream gets this many appends.
const APPENDS: i64 = 4;
/// How many streams one COPY fills: 20,000 events, so that its commit costs next to nothing.
const COPIED_STREAMS: usize = 1000;

pub(crate) async fn run(server: &Server, effort: Effort) -> Result<Entry> {
    let url = server.database("append_copy").await?;
    let store = EventStore::connect(&url).await?;
    let mut appenders: Vec<_> =
        (0..APPENDERS).map(|seed| Appender::new(store.clone(), seed as u64)).collect();
    let admin = connect(&url).await?;
    // Its indexes too.
    admin.batch_execute("create table copied (like annals.events including all)").await?;
    let target = Target::new("copied");
    let mut copiers = Vec::new();
    for seed in 0..4 {
        copiers.push(Copier::new(connect(&url).await?, target.clone(), seed));
    }
    server.checkpoint().await?;

    drive(&mut appenders, effort.warm_up).await?;
    let (mut connections, mut best) = (0, 0.0);
    for count in [1, 2, 4] {
        let rate = copy(&mut copiers, count, effort.time).await?.rate();
        if rate > best {
            (connections, best) = (count, rate);
        }
    }
    let (mut appended, mut copied, mut wal) = (Rounds::default(), Rounds::default(), Vec::new());
    for _ in 0..effort.rounds {
        let before = server.wal_bytes().await?;
        let measured = measure(server, drive(&mut appenders, effort.time)).await?;
        wal.push((server.wal_bytes().await? - before) as f64 / measured.0.units as f64);
        appended.add(measured);
        let mut measured = measure(server, copy(&mut copiers, connections, effort.time)).await?;
        // How long a COPY takes is of no interest beside how long an append takes.
        measured.0.latencies.clear();
        copied.add(measured);
    }
    let annals = About {
        name: "annals",
        version: env!("CARGO_PKG_VERSION"),
        setup: "EventStore::append, 512 at once, five events each",
    };
    let other = About {
        name: match connections {
            1 => "COPY, 1 connection",
            2 => "COPY, 2 connections",
            _ => "COPY, 4 connections",
        },
        version: "binary",
        setup: "20,000 events for each COPY and commit; the fastest of 1, 2 and 4 connections",
    };
    let mut entry =
        Entry::new("append_copy", "events/s", appended.side(annals), vec![copied.side(other)]);
    entry.add("wal_bytes_per_event", json!(median(&wal).round()));
    Ok(entry)
}

/// Copies with the first `count` of the copiers.
async fn copy(copiers: &mut Vec<Copier>, count: usize, time: Duration) -> Result<Round> {
    let mut busy: Vec<_> = copiers.drain(..count).collect();
    let round = drive(&mut busy, time).await;
    copiers.append(&mut busy);
    round
}

/// Appends to streams of its own, one after the other.
pub(super) struct Appender {
    store: EventStore,
    random: SmallRng,
    stream: Option<StreamId>,
    version: i64,
}

impl Appender {
    pub(super) fn new(store: EventStore, seed: u64) -> Self {
        Self { store, random: SmallRng::seed_from_u64(seed), stream: None, version: 0 }
    }
}

impl Worker for Appender {
    async fn step(&mut self) -> Result<u64> {
        let stream = match &self.stream {
            Some(stream) if self.version < APPENDS * EVENTS as i64 => stream.clone(),
            _ => {
                self.version = 0;
                self.stream.insert(StreamId::new("account", Uuid::now_v7())?).clone()
            }
        };
        let events = events(&mut self.random, EVENTS)?;
        let expected = ExpectedVersion::Exact(Version::new(self.version));
        self.store.append(Append::to(stream, expected, events)).await?;
        self.version += EVENTS as i64;
        Ok(EVENTS as u64)
    }
}

struct Copier {
    client: Client,
    target: Target,
    random: SmallRng,
}

impl Copier {
    fn new(client: Client, target: Target, seed: u64) -> Self {
        Self { client, target, random: SmallRng::seed_from_u64(seed) }
    }
}

impl Worker for Copier {
    async fn step(&mut self) -> Result<u64> {
        let stream = || events(&mut self.random, APPENDS as usize * EVENTS);
        let streams = std::iter::repeat_with(stream).take(COPIED_STREAMS);
        let streams = streams.collect::<Result<Vec<_>>>()?;
        self.target.copy(&self.client, streams).await
    }
}

/// Events as a bank has them.
pub(super) fn events(random: &mut SmallRng, count: usize) -> Result<Vec<NewEvent>> {
    let event = || {
        let amount = random.random_range(1..=5_000);
        let reference = format!("invoice {}", random.random_range(0..1_000_000));
        Ok(NewEvent::of(&if random.random() {
            AccountEvent::Deposited { amount, reference }
        } else {
            AccountEvent::Withdrawn { amount, reference }
        })?)
    };
    std::iter::repeat_with(event).take(count).collect()
}
