//! Appends without pause, whatever happens to the database.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use annals_eventstore::{Append, EventStore, ExpectedVersion, Metadata, StreamId};
use rand::{Rng, SeedableRng, rngs::StdRng};
use tokio::{task::JoinSet, time::sleep};
use tokio_util::sync::CancellationToken;

use crate::kafka_support::{CATEGORIES, event};

/// So many append at a time.
const WRITERS: u64 = 4;

/// Writers at work.
pub(crate) struct Load {
    writers: JoinSet<()>,
    acknowledged: Arc<AtomicU64>,
    stop: CancellationToken,
}

impl Load {
    pub(crate) fn start(store: &EventStore, seed: u64) -> Self {
        let (acknowledged, stop) = (Arc::new(AtomicU64::new(0)), CancellationToken::new());
        let mut writers = JoinSet::new();
        for writer in 0..WRITERS {
            let random = StdRng::seed_from_u64(seed.wrapping_add(writer));
            let work = write(store.clone(), random, acknowledged.clone());
            let stop = stop.clone();
            writers.spawn(async move {
                let _ = stop.run_until_cancelled(work).await;
            });
        }
        Self { writers, acknowledged, stop }
    }

    /// How many events are recorded for sure.
    pub(crate) fn acknowledged(&self) -> u64 {
        self.acknowledged.load(Ordering::Relaxed)
    }

    /// Ends it. Returns how many events are recorded for sure.
    pub(crate) async fn stop(mut self) -> u64 {
        self.stop.cancel();
        while let Some(ended) = self.writers.join_next().await {
            ended.unwrap();
        }
        self.acknowledged.load(Ordering::Relaxed)
    }
}

async fn write(store: EventStore, mut random: StdRng, acknowledged: Arc<AtomicU64>) {
    loop {
        let (append, events) = append(&mut random);
        match store.append(append).await {
            Ok(_) => {
                acknowledged.fetch_add(events, Ordering::Relaxed);
            }
            // It may be recorded or not: what counts is the log.
            Err(error) => assert!(error.is_retryable(), "{error:?}"),
        }
        sleep(Duration::from_millis(random.random_range(0..12))).await;
    }
}

/// One to five events, rarely many, of one stream.
fn append(random: &mut StdRng) -> (Append, u64) {
    let category = CATEGORIES[random.random_range(0..CATEGORIES.len())];
    let stream = StreamId::new(category, random.random_range(0..30)).unwrap();
    let count = if random.random_ratio(1, 50) { 120 } else { random.random_range(1..=5) };
    let events: Vec<_> = (0..count)
        .map(|_| {
            let padding = "x".repeat(random.random_range(0..300));
            let json = format!(r#"{{ "n":{}, "padding":"{padding}" }}"#, random.random::<u32>());
            event(json)
                .metadata(Metadata::new().correlation_id(format!("{}", random.random::<u16>())))
        })
        .collect();
    (Append::to(stream, ExpectedVersion::Any, events), count)
}
