//! The circuit breaker of a projection, as operators see it and hold it.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use annals_eventstore::{EventStore, Recorded, postgres::Client as Sql};
use annals_projections::{
    Cause, Effect, React, Reaction, Reactor, ReactorSource, SqlProjection, Start, Worker,
    async_trait,
    control::{self, State},
};
use metrics_util::debugging::{DebugValue, DebuggingRecorder, Snapshotter};

use crate::support::{
    Running,
    database::TestDatabase,
    eventually,
    ledger::{Ledger, LedgerEvent, add},
};

/// Fails while it is down, and notes what the metric says at each attempt.
#[derive(Clone)]
struct Post {
    categories: Vec<String>,
    is_down: Arc<AtomicBool>,
    metrics: Arc<Snapshotter>,
    seen: Arc<Mutex<Vec<f64>>>,
}

impl Post {
    fn attempt(&self) -> Result<(), Cause> {
        // A look sets it to zero.
        let all = self.metrics.snapshot().into_vec();
        let mut states = all.into_iter().filter_map(|(key, .., value)| match value {
            DebugValue::Gauge(value) if key.key().name() == "annals_circuit_state" => Some(value),
            _ => None,
        });
        let state = states.next().unwrap();
        self.seen.lock().unwrap().push(state.into_inner());
        if self.is_down.load(Ordering::Relaxed) { Err("it is down".into()) } else { Ok(()) }
    }

    fn seen(&self) -> Vec<f64> {
        self.seen.lock().unwrap().clone()
    }
}

#[async_trait]
impl SqlProjection for Post {
    fn name(&self) -> &str {
        "post"
    }

    fn categories(&self) -> &[String] {
        &self.categories
    }

    async fn apply(&self, _: &[Recorded], _: &Sql) -> Result<(), Cause> {
        self.attempt()
    }
}

impl Reactor for Post {
    fn name(&self) -> &str {
        "post"
    }

    fn sources() -> Vec<ReactorSource<Self>> {
        vec![ReactorSource::of::<Ledger>()]
    }

    fn start(&self) -> Start {
        Start::Beginning
    }
}

impl React<LedgerEvent> for Post {
    async fn react(&self, _: &Recorded<LedgerEvent>, _: &Effect) -> Result<Reaction, Cause> {
        self.attempt().map(|()| Reaction::Done)
    }
}

async fn state(store: &EventStore) -> Option<State> {
    let all = control::status(store).await.unwrap();
    all.into_iter().find(|one| one.name == "post").map(|one| one.state)
}

async fn is_held_open_by_a_pause(work: impl Fn(Worker, Post) -> Worker) {
    let database = TestDatabase::create().await;
    let store = database.store().await;
    // The runtime has one thread, whose recorder it is.
    let recorder = DebuggingRecorder::new();
    let post = Post {
        categories: vec!["ledger".to_owned()],
        is_down: Arc::new(true.into()),
        metrics: Arc::new(recorder.snapshotter()),
        seen: Arc::default(),
    };
    let _recording = metrics::set_default_local_recorder(&recorder);
    add(&store, "a", 1).await;
    let start = || {
        let worker = Worker::new(&store).poll_interval(Duration::from_millis(20)).break_after(2);
        let cool_down = Duration::from_millis(50);
        Running::start(work(worker.cool_down(cool_down, 2 * cool_down), post.clone()))
    };
    let running = start();
    eventually("the breaker opens and lets trials through", async || post.seen().len() >= 5).await;
    let seen = post.seen();
    let (closed, trials) = seen.split_at(2);
    assert_eq!(closed, [0.0, 0.0]);
    assert!(trials.iter().all(|state| *state == 1.0), "half open: {trials:?}");

    assert!(control::pause(&store, "post", "by hand").await.unwrap());
    tokio::time::sleep(Duration::from_millis(1500)).await;
    let tried = post.seen().len();
    post.is_down.store(false, Ordering::Relaxed);
    tokio::time::sleep(Duration::from_secs(1)).await;
    running.stop().await;
    // The next worker holds it, too.
    let running = start();
    tokio::time::sleep(Duration::from_millis(1500)).await;
    assert_eq!(post.seen().len(), tried, "nothing is tried, though it would work");
    assert_eq!(state(&store).await, Some(State::Paused("by hand".to_owned())));

    assert!(control::resume(&store, "post").await.unwrap());
    eventually("it goes on", async || post.seen().len() > tried).await;
    assert_eq!(post.seen()[tried], 0.0, "it is closed: this was no trial");
    eventually("it runs", async || state(&store).await == Some(State::Running)).await;
    assert_eq!(control::parked(&store, Some("post")).await.unwrap(), []);
    running.stop().await;
}

#[tokio::test]
async fn that_of_a_projection_in_sql_is_held_open_by_a_pause() {
    is_held_open_by_a_pause(|worker, post| worker.sql(post)).await;
}

#[tokio::test]
async fn that_of_a_reactor_is_held_open_by_a_pause() {
    is_held_open_by_a_pause(|worker, post| worker.reactor(post)).await;
}
