//! How the cost of executing, appending and loading grows with the store.

use std::sync::Arc;

use annals::EventStore;
use anyhow::{Result, ensure};
use rand::{Rng, SeedableRng, rngs::SmallRng};
use serde_json::json;
use tokio_postgres::Client as Connection;

use super::append_copy::Appender;
use crate::{
    client::Client,
    contestant::{About, Account, Annals, Contestant},
    measure::{Effort, Round, Summary, Worker, drive},
    report::{Entry, Side},
    server::{Server, connect},
};

const AT_ONCE: usize = 64;
/// Events of each stream that is filled in.
const STREAM: i64 = 10;
const SMALLEST: i64 = 100_000;

/// From 100,000 events by steps of ten to `largest`.
pub(crate) async fn run(server: &Server, effort: Effort, largest: i64) -> Result<Entry> {
    ensure!(largest >= 10 * SMALLEST, "the largest store must have 1,000,000 events or more");
    let url = server.database("growth").await?;
    let store = EventStore::connect(&url).await?;
    let annals: Arc<dyn Contestant> = Arc::new(Annals::connect(&url).await?);
    let admin = connect(&url).await?;
    let mut steps = Vec::new();
    let mut size = SMALLEST;
    let (mut first, mut last) = (None, None);
    while size <= largest {
        let streams = fill(&admin, size).await?;
        server.checkpoint().await?;
        let mut clients = Client::many(&annals, AT_ONCE, 0);
        let mut appenders: Vec<_> =
            (0..AT_ONCE).map(|seed| Appender::new(store.clone(), seed as u64)).collect();
        let mut loaders: Vec<_> =
            (0..AT_ONCE).map(|seed| Loader::new(store.clone(), seed as u64, streams)).collect();
        drive(&mut clients, effort.warm_up).await?;
        drive(&mut loaders, effort.warm_up).await?;
        let mut rounds: [Vec<Round>; 3] = Default::default();
        for _ in 0..effort.rounds {
            rounds[0].push(drive(&mut clients, effort.time).await?);
            rounds[1].push(drive(&mut appenders, effort.time).await?);
            rounds[2].push(drive(&mut loaders, effort.time).await?);
        }
        let [execute, append, load] = rounds.map(|rounds| Summary::of(&rounds));
        steps.push(json!({
            "events": size,
            "execute_64": execute.json(),
            "append_64_events": append.json(),
            "load_64": load.json(),
        }));
        first.get_or_insert_with(|| execute.clone());
        last = Some((size, execute));
        size *= 10;
    }
    let version = env!("CARGO_PKG_VERSION");
    let annals = About {
        name: "annals, largest store",
        version,
        setup: "64 commands at once, after the last step of growth",
    };
    let other = About {
        name: "annals, 100,000 events",
        version,
        setup: "64 commands at once, before growth",
    };
    let (Some(first), Some((size, last))) = (first, last) else {
        anyhow::bail!("no step was measured")
    };
    let others = vec![Side::of(other, first)];
    let mut entry = Entry::new("growth", "commands/s", Side::of(annals, last), others);
    entry.add("events", json!(size));
    entry.add("steps", json!(steps));
    Ok(entry)
}

/// Fills the store up to so many events, as appends would have left it, and returns how many streams
/// were filled. A stream's events lie far apart in the log.
async fn fill(admin: &Connection, events: i64) -> Result<i64> {
    let row = admin.query_one("select annals.last_position()", &[]).await?;
    let position: i64 = row.get(0);
    let filled = "select count(*) from annals.streams where key like 'filled-%'";
    let filled: i64 = admin.query_one(filled, &[]).await?.get(0);
    let missing = (events - position).max(0) / STREAM * STREAM;
    let streams = missing / STREAM;
    if streams == 0 {
        return Ok(filled);
    }
    // Nobody appends meanwhile: what follows is not an append, and would not wait for one.
    admin
        .batch_execute(&format!(
            "begin;
            create temporary table new_streams on commit drop as
            with added as (
                insert into annals.streams (category, key, version)
                select 'account', 'filled-' || n, {STREAM}
                from generate_series({filled}, {filled} + {streams} - 1) n
                returning id, key
            ) select id, row_number() over (order by id) as number from added;
            create unique index on new_streams (number);
            analyze new_streams;
            insert into annals.events (position, stream_id, version, event_id, type,
                schema_version, recorded_at, payload)
            select {position} + n + 1, s.id, n / {streams} + 1, gen_random_uuid(),
                case when n / {streams} = 0 then 'opened' else 'deposited' end, 1, now(),
                case when n / {streams} = 0
                    then format('{{\"owner\":\"customer %s\",\"deposit\":1000}}', n)
                    else format('{{\"amount\":10,\"reference\":\"invoice %s\"}}', n) end::json
            from generate_series(0, {missing} - 1) n
            join new_streams s on s.number = n % {streams} + 1
            order by n;
            select setval('annals.positions', {position} + {missing});
            commit"
        ))
        .await?;
    // As autovacuum would do soon. It takes no transaction, so it goes alone.
    admin.batch_execute("vacuum analyze annals.events, annals.streams").await?;
    Ok(filled + streams)
}

/// Loads filled streams, and checks what they hold.
struct Loader {
    store: EventStore,
    random: SmallRng,
    streams: i64,
}

impl Loader {
    fn new(store: EventStore, seed: u64, streams: i64) -> Self {
        Self { store, random: SmallRng::seed_from_u64(seed), streams }
    }
}

impl Worker for Loader {
    async fn step(&mut self) -> Result<u64> {
        let key = format!("filled-{}", self.random.random_range(0..self.streams));
        let loaded = self.store.load::<Account>(&key).await?;
        let balance = loaded.and_then(|account| account.state.0.0);
        ensure!(balance == Some(1000 + 10 * (STREAM - 1)), "{key} holds {balance:?}");
        Ok(1)
    }
}
