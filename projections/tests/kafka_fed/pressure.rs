//! A projection that is slower than Kafka: reading waits for it, its partitions are paused and resumed, and memory stays bounded.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use annals_eventstore::{Recorded, postgres::Client as Sql};
use annals_projections::{Cause, SqlProjection, Worker, async_trait};
use metrics_util::debugging::{DebugValue, DebuggingRecorder, Snapshotter};

use crate::{
    relay::Relay,
    support::{
        Running,
        database::{TestDatabase, value},
        eventually,
        ledger::{Ledger, LedgerEvent, add, append},
    },
};

const BUFFER: usize = 1 << 20;
const EVENTS: usize = 2000;

/// Counts events, and stands still at first when it is told to be slow.
struct Slow {
    categories: [String; 1],
    stands_still: Arc<AtomicBool>,
}

#[async_trait]
impl SqlProjection for Slow {
    fn name(&self) -> &str {
        "slow"
    }

    fn categories(&self) -> &[String] {
        &self.categories
    }

    async fn install(&self, sql: &Sql) -> Result<(), Cause> {
        Ok(sql.batch_execute("create table seen (position bigint not null)").await?)
    }

    async fn reset(&self, sql: &Sql) -> Result<(), Cause> {
        Ok(sql.batch_execute("drop table if exists seen").await?)
    }

    async fn apply(&self, events: &[Recorded], sql: &Sql) -> Result<(), Cause> {
        while self.stands_still.load(Ordering::Relaxed) {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        let positions: Vec<_> = events.iter().map(|event| event.position.get()).collect();
        sql.execute("insert into seen select unnest($1::bigint[])", &[&positions]).await?;
        Ok(())
    }
}

/// The most that was seen of what waits in the feeds of this program, and of what lies before them.
#[derive(Clone, Copy, Debug, Default)]
struct Most {
    waiting_bytes: f64,
    lag_records: f64,
}

impl Most {
    /// Looks again. A look takes the values with it, and what does not change is not told again.
    fn look(&mut self, metrics: &Snapshotter) {
        for (key, .., value) in metrics.snapshot().into_vec() {
            let DebugValue::Gauge(value) = value else { continue };
            match key.key().name() {
                "annals_kafka_feed_waiting_bytes" => {
                    self.waiting_bytes = self.waiting_bytes.max(value.0);
                }
                "annals_kafka_feed_lag_records" => {
                    self.lag_records = self.lag_records.max(value.0);
                }
                _ => {}
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_projection_is_waited_for() {
    let database = TestDatabase::create().await;
    let (store, client) = (database.store().await, database.client().await);
    let relay = Relay::start(&store).await;
    let stands_still = Arc::new(AtomicBool::new(false));
    let slow = Slow { categories: ["ledger".to_owned()], stands_still: stands_still.clone() };
    let source = relay.source().buffer_bytes(BUFFER);
    let worker = Worker::new(&store).sql(slow).batch_size(20).kafka(source);
    let running = Running::start(worker.poll_interval(Duration::from_millis(20)));
    relay.feeds("slow", || async { drop(add(&store, "a", 1).await) }).await;

    let recorder = DebuggingRecorder::new();
    let metrics = recorder.snapshotter();
    // Feeds have threads of their own, so it is the program's; other tests here look at none.
    recorder.install().unwrap();
    stands_still.store(true, Ordering::Relaxed);
    let text = "x".repeat(10_000);
    for number in 0..EVENTS / 20 {
        let event = || LedgerEvent::Shared { ledgers: vec![text.clone()], amount: 1 };
        append::<Ledger>(&store, &format!("{}", number % 50), (0..20).map(|_| event())).await;
    }
    relay.published().await;
    let seen = std::cell::Cell::new(Most::default());
    let look = || {
        let mut most = seen.get();
        most.look(&metrics);
        seen.set(most);
        most
    };
    let is_full = || async { look().waiting_bytes >= BUFFER as f64 / 2.0 };
    eventually("its feed is full", is_full).await;
    // Long enough to be paused, and for a client that goes on fetching to show it.
    for _ in 0..300 {
        look();
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let most = look();
    println!("of about 20 MB: {most:?}");
    assert!(most.waiting_bytes < 3.0 * BUFFER as f64, "{most:?}");
    assert!(most.lag_records > EVENTS as f64 / 2.0, "{most:?}");

    stands_still.store(false, Ordering::Relaxed);
    let end = store.safe_position().await.unwrap().get();
    let reached = "select coalesce(annals.reached('projection:slow'), -1)";
    eventually("it has caught up", || async { value::<i64>(&client, reached).await >= end }).await;
    let exact = "select (select array_agg(position order by position) from seen)
        = (select array_agg(position order by position) from annals.events e
           join annals.streams s on s.id = e.stream_id where s.category = 'ledger')";
    assert!(value::<bool>(&client, exact).await, "each event once");
    running.stop().await;
}
