//! A read model that Kafka feeds catching up with a topic, against the same one that the store feeds.

use std::time::{Duration, Instant};

use annals::{
    EventStore, Position, QueryReadModels, Worker,
    kafka::{Publisher, Source},
};
use anyhow::{Context, Result, ensure};
use tokio_util::sync::CancellationToken;

use super::{
    super::{
        read_side::{BalanceRow, fill},
        rounds::{Rounds, measure},
    },
    PARTITIONS, reaches,
};
use crate::{
    broker::Broker,
    contestant::About,
    measure::{Effort, Round},
    report::Entry,
    server::{Server, connect},
};

/// Events of one account.
const EVENTS: usize = 5;
/// A worker that has not come to the end by then has failed.
const PATIENCE: Duration = Duration::from_secs(120);

pub(crate) async fn run(server: &Server, broker: &Broker, effort: Effort) -> Result<Entry> {
    let (url, own_url) = (server.database("consume").await?, server.database("consumer").await?);
    let (store, own) = (EventStore::connect(&url).await?, EventStore::connect(&own_url).await?);
    let context = broker.context();
    let events = effort.replayed / 4;
    let (mut by_kafka, mut by_store) = (Rounds::default(), Rounds::default());
    // The first round warms up.
    for index in 0..=effort.rounds {
        fill(&store, usize::try_from(events)? / EVENTS, EVENTS).await?;
        let end = publish(&store, broker, &context).await?;
        server.checkpoint().await?;
        let source = Source::new(broker.addresses(), &context)?;
        let kafka_fed = Worker::consumer(&own, source);
        let kafka_fed = measure(server, catch_up(&own, kafka_fed, events, end)).await?;
        let store_fed = Worker::new(&store);
        let store_fed = measure(server, catch_up(&store, store_fed, events, end)).await?;
        if index > 0 {
            by_kafka.add(kafka_fed);
            by_store.add(store_fed);
        }
    }
    let all = events * (effort.rounds as u64 + 1);
    check_same(&url, &own_url, all).await?;
    let annals = About {
        name: "annals, by Kafka",
        version: env!("CARGO_PKG_VERSION"),
        setup: "Worker::consumer with a database of its own: a row model with history, from the start of the worker",
    };
    let other = About {
        name: "annals, by the store",
        version: env!("CARGO_PKG_VERSION"),
        setup: "Worker::new: the same row model, from the start of the worker",
    };
    let others = vec![by_store.side(other)];
    Ok(Entry::new("consume_to_read_model", "events/s", by_kafka.side(annals), others))
}

/// Publishes what is not published yet. Returns where the log ends.
async fn publish(store: &EventStore, broker: &Broker, context: &str) -> Result<Position> {
    let end = store.safe_position().await?;
    let publisher =
        Publisher::builder(broker.addresses(), context).partitions(PARTITIONS).build(store)?;
    let mut progress = publisher.progress();
    let stop = CancellationToken::new();
    let publishing = tokio::spawn(publisher.run_until(stop.clone()));
    let reached = reaches(&mut progress, |now| now.position >= end).await;
    stop.cancel();
    publishing.await.context("the publisher panicked")??;
    reached.map(|()| end)
}

/// Lets a worker catch up with so many events.
async fn catch_up(store: &EventStore, worker: Worker, events: u64, end: Position) -> Result<Round> {
    let start = Instant::now();
    let stop = CancellationToken::new();
    let working = tokio::spawn(worker.projection::<BalanceRow>().run_until(stop.clone()));
    let reached = store.query::<BalanceRow>().wait_for(end, PATIENCE).await;
    let elapsed = start.elapsed();
    stop.cancel();
    working.await.context("the worker panicked")??;
    reached?;
    Ok(Round { units: events, elapsed, ..Round::default() })
}

/// Fails unless both have the same rows, made of all events.
async fn check_same(url: &str, own_url: &str, events: u64) -> Result<()> {
    let rows = "select count(*), sum(balance)::int8, sum(movements)::int8 from balances";
    let mut found = Vec::new();
    for url in [url, own_url] {
        let row = connect(url).await?.query_one(rows, &[]).await?;
        found.push([0, 1, 2].map(|column| row.get::<_, i64>(column)));
    }
    ensure!(found[0] == found[1], "the rows differ: {found:?}");
    let movements = u64::try_from(found[0][2])?;
    ensure!(movements == events, "the rows have {movements} of {events} movements");
    Ok(())
}
