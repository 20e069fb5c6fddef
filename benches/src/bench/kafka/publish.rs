//! Publishing a log that is there, against a producer that sends the same messages from memory.

use std::{sync::Arc, time::Instant};

use annals::{
    EventStore,
    kafka::{Delivery, Publisher, State},
};
use anyhow::{Context, Result, bail, ensure};
use serde_json::json;
use tokio_postgres::Client;
use tokio_util::sync::CancellationToken;

use super::{
    super::{
        read_side::fill,
        rounds::{Measured, Rounds, measure},
    },
    PARTITIONS,
    bare::Bare,
    reaches,
};
use crate::{
    broker::{Broker, Message},
    contestant::About,
    measure::{Effort, Round},
    report::Entry,
    server::{Server, connect},
};

/// Events of one account.
const EVENTS: usize = 5;

pub(crate) async fn run(
    name: &'static str,
    server: &Server,
    broker: &Broker,
    effort: Effort,
    delivery: Delivery,
) -> Result<Entry> {
    let url = server.database(name).await?;
    let store = EventStore::connect(&url).await?;
    let events = effort.replayed / 2;
    fill(&store, usize::try_from(events)? / EVENTS, EVENTS).await?;
    let client = connect(&url).await?;
    client.batch_execute("vacuum analyze annals.events, annals.streams").await?;
    server.checkpoint().await?;

    let log = Log { server, broker, store, client, delivery, events };
    // The first round warms up, and brings the messages.
    let context = broker.context();
    log.publish(&context).await?;
    let messages = broker.messages(topic(&context)).await?;
    ensure!(messages.len() as u64 == events, "{} of {events} messages", messages.len());
    log.send(&broker.context(), &messages).await?;
    let (mut published, mut sent) = (Rounds::default(), Rounds::default());
    for _ in 0..effort.rounds {
        let contexts = [broker.context(), broker.context()];
        published.add(log.publish(&contexts[0]).await?);
        sent.add(log.send(&contexts[1], &messages).await?);
        for context in &contexts {
            log.check(context).await?;
        }
        broker.delete_topics().await?;
    }
    let annals = About {
        name: "annals",
        version: env!("CARGO_PKG_VERSION"),
        setup: match delivery {
            Delivery::AtLeastOnce => "Publisher, Delivery::AtLeastOnce, default options",
            _ => "Publisher, default options: transactions of 10,000 events at most",
        },
    };
    let bare = About {
        name: "bare producer",
        version: "rdkafka",
        setup: "the same messages with the same headers from memory: idempotent, acks=all, lz4, \
                the same linger, without transactions",
    };
    let others = vec![sent.side(bare)];
    let mut entry = Entry::new(name, "events/s", published.side(annals), others);
    let bytes = |message: &Message| {
        let headers = message.headers.iter().map(|(key, value)| key.len() + value.len());
        [message.key.len() + message.payload.len(), headers.sum()]
    };
    let mean = |index: usize| {
        let sum: usize = messages.iter().map(|message| bytes(message)[index]).sum();
        sum / messages.len().max(1)
    };
    entry.add("bytes_per_message", json!({ "key_and_payload": mean(0), "headers": mean(1) }));
    Ok(entry)
}

/// The topic of the accounts.
fn topic(context: &str) -> String {
    format!("{context}.account.events.v1")
}

/// A log to publish.
struct Log<'a> {
    server: &'a Server,
    broker: &'a Broker,
    store: EventStore,
    client: Client,
    delivery: Delivery,
    events: u64,
}

impl Log<'_> {
    /// Publishes all of it to a context. The time counts from when the publisher begins to read until the last event is
    /// acknowledged, or its transaction committed.
    async fn publish(&self, context: &str) -> Result<Measured> {
        // To another context it is published anew.
        let forget = "delete from annals.checkpoints where name = $1";
        self.client.execute(forget, &[&Publisher::CHECKPOINT]).await?;
        let publisher = Publisher::builder(self.broker.addresses(), context)
            .delivery(self.delivery)
            .partitions(PARTITIONS)
            .build(&self.store)?;
        let mut progress = publisher.progress();
        let stop = CancellationToken::new();
        let publishing = tokio::spawn(publisher.run_until(stop.clone()));
        let measured = measure(self.server, async {
            reaches(&mut progress, |now| now.state == State::Publishing).await?;
            let start = Instant::now();
            reaches(&mut progress, |now| now.published >= self.events).await?;
            Ok(Round { units: self.events, elapsed: start.elapsed(), ..Round::default() })
        });
        let measured = measured.await;
        stop.cancel();
        // Why it has ended early, if it has.
        publishing.await.context("the publisher panicked")??;
        measured
    }

    /// Sends the same messages, without a log.
    async fn send(&self, context: &str, messages: &Arc<[Message]>) -> Result<Measured> {
        let topic = topic(context);
        self.broker.create_topic(&topic, PARTITIONS.into()).await?;
        let bare = Bare::connect(self.broker, self.delivery)?;
        measure(self.server, bare.send(topic, messages.clone())).await
    }

    /// Fails unless the topic has each event once.
    async fn check(&self, context: &str) -> Result<()> {
        let mut positions = self.broker.positions(topic(context)).await?;
        let messages = positions.len() as u64;
        positions.dedup();
        if messages != self.events || positions.len() as u64 != self.events {
            let (distinct, events) = (positions.len(), self.events);
            bail!("{context} has {messages} messages of {distinct} events, and not {events}");
        }
        Ok(())
    }
}
