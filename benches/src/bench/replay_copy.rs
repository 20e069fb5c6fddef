//! The whole log, decoded to typed events, against COPY of the same columns to the client.

use std::time::Instant;

use annals::{Append, EventStore, ExpectedVersion, Position, StreamId};
use anyhow::{Result, ensure};
use bytes::Bytes;
use futures::{StreamExt, TryStreamExt, stream};
use rand::{SeedableRng, rngs::SmallRng};
use tokio_postgres::Client;
use uuid::Uuid;

use super::{
    append_copy::events,
    copy::COLUMNS,
    rounds::{Rounds, measure},
};
use crate::{
    bank::AccountEvent,
    contestant::About,
    measure::{Effort, Round, micros},
    report::Entry,
    server::{Server, connect},
};

/// Events of one stream.
const STREAM: usize = 10;
/// Latency is that of so many events, one after the other: what `read_all` fetches at a time.
const PAGE: u64 = 2000;

pub(crate) async fn run(server: &Server, effort: Effort) -> Result<Entry> {
    let url = server.database("replay_copy").await?;
    let store = EventStore::connect(&url).await?;
    fill(&store, effort.replayed).await?;
    let client = connect(&url).await?;
    // As autovacuum would do soon; and what was written is on disk.
    client.batch_execute("vacuum analyze annals.events, annals.streams").await?;
    server.checkpoint().await?;

    let plain = format!("copy annals.events ({COLUMNS}) to stdout (format binary)");
    let joined = "copy (select e.position, s.category, s.key, e.version, e.event_id, e.type, \
         e.schema_version, e.recorded_at, e.occurred_at, e.payload, e.metadata \
         from annals.events e join annals.streams s on s.id = e.stream_id order by e.position) \
         to stdout (format binary)";
    let [mut replayed, mut copied, mut copied_joined] = [(); 3].map(|()| Rounds::default());
    for round in 0..=effort.rounds {
        let each = [
            measure(server, replay(&store, effort.replayed)).await?,
            measure(server, copy(&client, &plain, effort.replayed)).await?,
            measure(server, copy(&client, joined, effort.replayed)).await?,
        ];
        // The first round warms up.
        if round > 0 {
            for (rounds, measured) in
                [&mut replayed, &mut copied, &mut copied_joined].into_iter().zip(each)
            {
                rounds.add(measured);
            }
        }
    }
    let annals = About {
        name: "annals",
        version: env!("CARGO_PKG_VERSION"),
        setup: "EventStore::read_all, each event decoded to its type",
    };
    let other = About {
        name: "COPY",
        version: "binary",
        setup: "the columns of annals.events, 1 connection, not decoded",
    };
    let other_joined = About {
        name: "COPY of the join",
        version: "binary",
        setup: "as read_all has it: with category and key, in the order of positions",
    };
    let others = vec![copied.side(other), copied_joined.side(other_joined)];
    Ok(Entry::new("replay_copy", "events/s", replayed.side(annals), others))
}

/// Appends events of many streams.
async fn fill(store: &EventStore, events_wanted: u64) -> Result<()> {
    let appends = usize::try_from(events_wanted)? / STREAM;
    let append = |seed| async move {
        let events = events(&mut SmallRng::seed_from_u64(seed as u64), STREAM)?;
        let stream = StreamId::new("account", Uuid::now_v7())?;
        store.append(Append::to(stream, ExpectedVersion::NoStream, events)).await?;
        anyhow::Ok(())
    };
    stream::iter(0..appends).map(append).buffer_unordered(512).try_collect().await
}

async fn replay(store: &EventStore, expected: u64) -> Result<Round> {
    let mut laps = Laps::start();
    let mut events = std::pin::pin!(store.read_all(Position::START));
    while let Some(event) = events.try_next().await? {
        std::hint::black_box(event.decode::<AccountEvent>()?);
        laps.event();
    }
    let round = laps.end();
    ensure!(round.units == expected, "{} events were read, and {expected} are there", round.units);
    Ok(round)
}

/// Takes what COPY sends; it is not looked at, but for how much it is.
async fn copy(client: &Client, copy: &str, events: u64) -> Result<Round> {
    let mut laps = Laps::start();
    let mut chunks = std::pin::pin!(client.copy_out(copy).await?);
    let mut bytes = 0;
    while let Some(chunk) = chunks.try_next().await? {
        bytes += Bytes::len(&chunk) as u64;
        // A row each, but for the end.
        laps.event();
    }
    ensure!(bytes > events * 50, "COPY returned only {bytes} bytes for {events} events");
    Ok(Round { units: events, ..laps.end() })
}

/// A round of reading, with how long each page of it took.
struct Laps {
    start: Instant,
    page: Instant,
    round: Round,
}

impl Laps {
    fn start() -> Self {
        let now = Instant::now();
        Self { start: now, page: now, round: Round::default() }
    }

    fn event(&mut self) {
        self.round.units += 1;
        if self.round.units.is_multiple_of(PAGE) {
            let now = Instant::now();
            self.round.latencies.push(micros(now - self.page));
            self.page = now;
        }
    }

    fn end(mut self) -> Round {
        self.round.elapsed = self.start.elapsed();
        self.round
    }
}
