//! Appends without pause, whatever happens to the database.

use std::{
    sync::{
        Arc,
        atomic::{AtomicI64, AtomicU64, Ordering},
    },
    time::Duration,
};

use annals_eventstore::{
    Append, EventStore, ExpectedVersion, Metadata, StreamId, kafka::Publisher, postgres::Checkpoint,
};
use rand::{Rng, SeedableRng, rngs::StdRng};
use tokio::{task::JoinSet, time::sleep};
use tokio_util::sync::CancellationToken;

use crate::kafka_support::{CATEGORIES, event};

/// So many append at a time.
const WRITERS: u64 = 4;
/// Writers wait when so many events are not published. On a slow machine they would be ever further ahead.
const BACKLOG: i64 = 1500;
const STEP: Duration = Duration::from_millis(20);

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
        let published = Arc::new(AtomicI64::new(0));
        writers.spawn(watch(store.clone(), published.clone(), stop.clone()));
        for writer in 0..WRITERS {
            let random = StdRng::seed_from_u64(seed.wrapping_add(writer));
            let shared = Shared {
                acknowledged: acknowledged.clone(),
                published: published.clone(),
                stop: stop.clone(),
            };
            writers.spawn(write(store.clone(), random, shared));
        }
        Self { writers, acknowledged, stop }
    }

    /// How many events are recorded for sure.
    pub(crate) fn acknowledged(&self) -> u64 {
        self.acknowledged.load(Ordering::Relaxed)
    }

    /// Ends it, when what was begun is over. Returns how many events are recorded for sure.
    pub(crate) async fn stop(mut self) -> u64 {
        self.stop.cancel();
        while let Some(ended) = self.writers.join_next().await {
            ended.unwrap();
        }
        self.acknowledged.load(Ordering::Relaxed)
    }
}

/// What a writer has in common with the others.
struct Shared {
    acknowledged: Arc<AtomicU64>,
    published: Arc<AtomicI64>,
    stop: CancellationToken,
}

async fn write(store: EventStore, mut random: StdRng, shared: Shared) {
    let mut last = 0;
    while !shared.stop.is_cancelled() {
        if last > shared.published.load(Ordering::Relaxed) + BACKLOG {
            sleep(STEP).await;
            continue;
        }
        let (append, events) = append(&mut random);
        match store.append(append).await {
            Ok(appended) => {
                last = appended.last_position.get();
                shared.acknowledged.fetch_add(events, Ordering::Relaxed);
            }
            // It may be recorded or not: what counts is the log.
            Err(error) => assert!(error.is_retryable(), "{error:?}"),
        }
        sleep(Duration::from_millis(random.random_range(0..12))).await;
    }
}

/// Keeps an eye on how far the store is published.
async fn watch(store: EventStore, published: Arc<AtomicI64>, stop: CancellationToken) {
    let database = store.database().unwrap();
    while !stop.is_cancelled() {
        // It may be down.
        if let Ok(Some(at)) = Checkpoint::position_of(database, Publisher::CHECKPOINT).await {
            published.store(at.get(), Ordering::Relaxed);
        }
        sleep(STEP).await;
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
