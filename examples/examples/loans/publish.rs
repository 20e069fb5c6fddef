//! Publishing beside the import. It never holds the import up: a broker that is down costs the
//! publishing and nothing else.

use std::time::{Duration, Instant};

use annals::{
    Aggregate, Error, EventStore, Position,
    kafka::{ProgressRecord, Publisher, State},
    postgres::{Checkpoint, Database},
};
use anyhow::{Context, anyhow, bail};
use rdkafka::{
    ClientConfig,
    admin::{AdminClient, AdminOptions},
    client::DefaultClientContext,
    types::RDKafkaErrorCode,
};
use tokio::{sync::watch, task::JoinHandle};
use tokio_util::sync::CancellationToken;

use crate::{args::Args, model::LoanApplication, progress::Progress};

/// How long publishing may stand still at the end before the run gives up on it.
const PATIENCE: Duration = Duration::from_secs(10);

/// A publisher at work, or none.
pub(crate) struct Publishing(Option<Running>);

struct Running {
    brokers: String,
    task: JoinHandle<Result<(), Error>>,
    progress: watch::Receiver<annals::kafka::Progress>,
}

impl Publishing {
    /// Publishes nothing.
    pub(crate) fn off() -> Self {
        Self(None)
    }

    /// Starts to publish what the store holds and will hold.
    pub(crate) fn start(
        args: &Args,
        store: &EventStore,
        stop: &CancellationToken,
    ) -> anyhow::Result<Self> {
        let brokers = args.brokers()?.to_owned();
        let publisher = Publisher::builder(&brokers, &args.context).build(store)?;
        let progress = publisher.progress();
        let task = tokio::spawn(publisher.run_until(stop.clone()));
        Ok(Self(Some(Running { brokers, task, progress })))
    }

    /// Waits until everything up to `end` is published, or until it is clear that it will not be.
    pub(crate) async fn finish(&mut self, end: Position, shown: &Progress) -> anyhow::Result<()> {
        let Some(Running { brokers, task, progress }) = &mut self.0 else { return Ok(()) };
        let mut moved = (Position::START, Instant::now());
        loop {
            let now = progress.borrow_and_update().clone();
            shown.published(now.position.get() as u64);
            if now.position >= end {
                return Ok(());
            }
            if now.position > moved.0 {
                moved = (now.position, Instant::now());
            } else if moved.1.elapsed() > PATIENCE {
                match now.state {
                    State::BrokerUnreachable { reason } | State::CircuitOpen { reason } => {
                        bail!("Kafka at {brokers} does not answer: {reason}")
                    }
                    state => {
                        bail!("publishing stands still at position {}: {state:?}", now.position)
                    }
                }
            }
            let change = tokio::time::timeout(Duration::from_millis(200), progress.changed());
            if let Ok(Err(_)) = change.await {
                task.await??;
                return Err(anyhow!("the publisher ended too early"));
            }
        }
    }

    /// Waits for the publisher, which has been told to stop: it gives its lease back. Says how far it came.
    pub(crate) async fn stopped(self) -> anyhow::Result<Position> {
        let Some(Running { task, progress, .. }) = self.0 else { return Ok(Position::START) };
        if !task.is_finished() {
            task.await??;
        }
        Ok(progress.borrow().position)
    }
}

/// How far the store is published.
pub(crate) async fn position(database: &Database) -> anyhow::Result<Position> {
    Ok(Checkpoint::position_of(database, Publisher::CHECKPOINT).await?.unwrap_or_default())
}

/// Removes what earlier runs have published: the events, and how far the store that is gone now was.
pub(crate) async fn reset(args: &Args) -> anyhow::Result<()> {
    let brokers = args.brokers()?;
    let topic = format!("{}.{}.events.v1", args.context, LoanApplication::CATEGORY);
    let progress = ProgressRecord::topic(&args.context);
    let admin: AdminClient<DefaultClientContext> =
        ClientConfig::new().set("bootstrap.servers", brokers).create()?;
    let options = AdminOptions::new()
        .request_timeout(Some(Duration::from_secs(5)))
        .operation_timeout(Some(Duration::from_secs(5)));
    let failed = || format!("cannot reset the topics {topic} and {progress} at Kafka {brokers}");
    let results = admin.delete_topics(&[&topic, &progress], &options).await;
    for result in results.with_context(failed)? {
        match result {
            Ok(_) | Err((_, RDKafkaErrorCode::UnknownTopicOrPartition)) => {}
            Err((_, code)) => return Err(anyhow!(code)).with_context(failed),
        }
    }
    Ok(())
}
