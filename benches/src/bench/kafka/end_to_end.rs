//! How long it takes from the call of an append until its event is in a read model that Kafka feeds, published exactly
//! once, at a steady 500 events per second.

use annals::{
    EventStore, Worker,
    control::{self, FedBy},
    kafka::{Publisher, Source},
};
use anyhow::{Result, ensure};
use serde_json::json;
use tokio_util::sync::CancellationToken;

use super::{
    super::read_side::{BalanceRow, fill, live_latency::round},
    PARTITIONS,
};
use crate::{
    broker::Broker,
    contestant::About,
    measure::{Effort, Summary},
    report::{Entry, Side},
    server::Server,
};

const RATE: u32 = 500;
const ACCOUNTS: usize = 1000;
/// A worker that is not fed by Kafka after so many rounds never is.
const WARM_UPS: usize = 20;

pub(crate) async fn run(server: &Server, broker: &Broker, effort: Effort) -> Result<Entry> {
    let url = server.database("end_to_end").await?;
    let store = EventStore::connect(&url).await?;
    let accounts = fill(&store, ACCOUNTS, 5).await?;
    server.checkpoint().await?;
    let context = broker.context();
    let publisher =
        Publisher::builder(broker.addresses(), &context).partitions(PARTITIONS).build(&store)?;
    let source = Source::new(broker.addresses(), &context)?;
    let worker = Worker::new(&store).kafka(source).projection::<BalanceRow>();
    let stop = CancellationToken::new();
    let publishing = tokio::spawn(publisher.run_until(stop.clone()));
    let working = tokio::spawn(worker.run_until(stop.clone()));
    let mut rounds = Vec::new();
    let time = effort.time * 3;
    // These rounds warm up; the worker replays the store until there is a topic, and it has caught up with that.
    for left in (0..WARM_UPS).rev() {
        round(&store, &url, &accounts, RATE, time).await?;
        match check_fed_by_kafka(&store).await {
            Err(error) if left == 0 => return Err(error),
            Err(_) => {}
            Ok(()) => break,
        }
    }
    for _ in 0..effort.rounds {
        rounds.push(round(&store, &url, &accounts, RATE, time).await?);
        check_fed_by_kafka(&store).await?;
    }
    stop.cancel();
    publishing.await??;
    working.await??;
    let about = About {
        name: "annals",
        version: env!("CARGO_PKG_VERSION"),
        setup: "a publisher and a worker with defaults in the process that appends; a row model with history",
    };
    let side = Side::of(about, Summary::of(&rounds));
    let mut entry = Entry::new("end_to_end", "events/s", side, Vec::new());
    entry.add("latency_is", json!("from the call of the append until a query shows its event"));
    Ok(entry)
}

/// Fails if the events did not come by way of Kafka.
async fn check_fed_by_kafka(store: &EventStore) -> Result<()> {
    let status = control::status(store).await?;
    let slices: Vec<_> = status.iter().flat_map(|found| &found.slices).collect();
    let by_kafka = !slices.is_empty() && slices.iter().all(|slice| slice.fed_by == FedBy::Kafka);
    ensure!(by_kafka, "the read model is not fed by Kafka: {slices:?}");
    Ok(())
}
