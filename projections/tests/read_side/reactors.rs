//! Reactors: at least once, with one id for each effect, in the order of each stream, and never in vain for long.

use std::{
    collections::{HashMap, HashSet},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use annals_eventstore::{EventStore, Position, Recorded, StreamId};
use annals_projections::{
    Cause, Effect, ProjectionError, React, Reaction, Reactor, ReactorSource, Start, Worker,
    control::{self, Kind, State},
};
use rand::Rng;
use tokio_postgres::Client;
use uuid::Uuid;

use crate::support::{
    Running,
    database::{TestDatabase, kill, value},
    eventually, lease,
    ledger::{Ledger, LedgerEvent, Tally, add},
    load::{Load, seeded},
    oracle::log,
};

type Answer = dyn Fn(&Recorded<LedgerEvent>, &Effect) -> Result<Reaction, Cause> + Send + Sync;

/// A reaction: to which event, and how far it came.
#[derive(Clone, Debug)]
struct Call {
    stream: String,
    version: i64,
    position: i64,
    effect: Effect,
    began: Instant,
    answered: bool,
}

/// Writes down how it is called, in all processes of a test. Clones share that.
#[derive(Clone)]
struct Mailer {
    calls: Arc<Mutex<Vec<Call>>>,
    running: Arc<AtomicUsize>,
    most: Arc<AtomicUsize>,
    answer: Arc<Mutex<Arc<Answer>>>,
    takes: Duration,
    start: Start,
    concurrency: usize,
    slices: u16,
}

impl Mailer {
    fn new() -> Self {
        Self {
            calls: Arc::default(),
            running: Arc::default(),
            most: Arc::default(),
            answer: Arc::new(Mutex::new(Arc::new(|_, _| Ok(Reaction::Done)))),
            takes: Duration::ZERO,
            start: Start::Beginning,
            concurrency: 16,
            slices: 1,
        }
    }

    fn answering(
        self,
        answer: impl Fn(&Recorded<LedgerEvent>, &Effect) -> Result<Reaction, Cause>
        + Send
        + Sync
        + 'static,
    ) -> Self {
        *self.answer.lock().unwrap() = Arc::new(answer);
        self
    }

    fn mend(&self) {
        *self.answer.lock().unwrap() = Arc::new(|_, _| Ok(Reaction::Done));
    }

    fn calls(&self) -> Vec<Call> {
        self.calls.lock().unwrap().clone()
    }

    /// The positions that it was called for, in this order.
    fn positions(&self) -> Vec<i64> {
        self.calls().iter().map(|call| call.position).collect()
    }

    fn of(&self, position: Position) -> Vec<Call> {
        self.calls().into_iter().filter(|call| call.position == position.get()).collect()
    }
}

impl Reactor for Mailer {
    fn name(&self) -> &str {
        "mailer"
    }

    fn sources() -> Vec<ReactorSource<Self>> {
        vec![ReactorSource::of::<Ledger>()]
    }

    fn start(&self) -> Start {
        self.start
    }

    fn concurrency(&self) -> usize {
        self.concurrency
    }

    fn slices(&self) -> u16 {
        self.slices
    }
}

/// Counts what runs, also where it is dropped.
struct Busy(Arc<AtomicUsize>);

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

impl React<LedgerEvent> for Mailer {
    async fn react(
        &self,
        event: &Recorded<LedgerEvent>,
        effect: &Effect,
    ) -> Result<Reaction, Cause> {
        let running = self.running.fetch_add(1, Ordering::SeqCst) + 1;
        let _busy = Busy(self.running.clone());
        self.most.fetch_max(running, Ordering::SeqCst);
        let number = {
            let mut calls = self.calls.lock().unwrap();
            calls.push(Call {
                stream: event.stream.to_string(),
                version: event.version.get(),
                position: event.position.get(),
                effect: *effect,
                began: Instant::now(),
                answered: false,
            });
            calls.len() - 1
        };
        tokio::time::sleep(self.takes).await;
        let answer = self.answer.lock().unwrap().clone();
        let answer = answer(event, effect);
        self.calls.lock().unwrap()[number].answered = true;
        answer
    }
}

fn worker(store: &EventStore, mailer: &Mailer) -> Worker {
    Worker::new(store).reactor(mailer.clone()).poll_interval(Duration::from_millis(20))
}

async fn reached(client: &Client) -> i64 {
    value(client, "select coalesce(annals.reached('projection:mailer'), -1)").await
}

async fn caught_up(store: &EventStore, client: &Client) {
    let end = store.safe_position().await.unwrap().get();
    eventually("it has caught up", || async { reached(client).await >= end }).await;
}

async fn parked(store: &EventStore) -> Vec<(Position, String)> {
    let parked = control::parked(store, Some("mailer")).await.unwrap();
    parked.into_iter().map(|one| (one.position, one.reason)).collect()
}

async fn state(store: &EventStore) -> Option<State> {
    let status = control::status(store).await.unwrap();
    status.into_iter().find(|status| status.name == "mailer").map(|status| status.state)
}

/// Every event was reacted to, each under an id of its own, and those of a stream one after the other: never one
/// before the one before it was done, except again.
async fn assert_sound(store: &EventStore, mailer: &Mailer) {
    let calls = mailer.calls();
    let log = log(store).await;
    let expected: HashSet<i64> = log
        .iter()
        .filter(|event| event.stream.category() == "ledger")
        .map(|event| event.position.get())
        .collect();
    let mut ids: HashMap<i64, Uuid> = HashMap::new();
    let mut done: HashMap<String, i64> = HashMap::new();
    for call in &calls {
        let id = *ids.entry(call.position).or_insert(call.effect.id);
        assert_eq!(id, call.effect.id, "{call:?}");
        let done = done.entry(call.stream.clone()).or_default();
        assert!(call.version <= *done + 1, "{call:?} came after version {done}");
        if call.answered {
            *done = call.version.max(*done);
        }
    }
    assert_eq!(ids.keys().copied().collect::<HashSet<_>>(), expected);
    assert_eq!(ids.values().collect::<HashSet<_>>().len(), expected.len());
}

#[tokio::test(flavor = "multi_thread")]
async fn it_begins_at_the_end_and_stays_where_it_once_began() {
    let database = TestDatabase::create().await;
    let (store, client) = (database.store().await, database.client().await);
    add(&store, "past", 1).await;
    let mailer = Mailer { start: Start::End, ..Mailer::new() };
    let running = Running::start(worker(&store, &mailer));
    caught_up(&store, &client).await;
    let first = add(&store, "a", 1).await.last_position.get();
    caught_up(&store, &client).await;
    running.stop().await;
    // What comes while none works is not lost, and where another would begin does not count.
    let second = add(&store, "a", 2).await.last_position.get();
    let running =
        Running::start(worker(&store, &Mailer { start: Start::Beginning, ..mailer.clone() }));
    caught_up(&store, &client).await;
    running.stop().await;
    assert_eq!(mailer.positions(), [first, second]);
    let status = control::status(&store).await.unwrap().remove(0);
    assert_eq!((&*status.name, status.kind, status.behind), ("mailer", Kind::Reactor, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn of_many_workers_one_sets_the_beginning() {
    let database = TestDatabase::create().await;
    let (store, client) = (database.store().await, database.client().await);
    add(&store, "past", 1).await;
    let mailer = Mailer { start: Start::End, ..Mailer::new() };
    let workers: Vec<_> = (0..4).map(|_| Running::start(worker(&store, &mailer))).collect();
    eventually("it is registered", || async { reached(&client).await >= 0 }).await;
    for n in 0..20 {
        add(&store, &n.to_string(), 1).await;
    }
    caught_up(&store, &client).await;
    for worker in workers {
        worker.stop().await;
    }
    let mut positions = mailer.positions();
    positions.sort_unstable();
    let expected: Vec<_> = log(&store).await[1..].iter().map(|one| one.position.get()).collect();
    assert_eq!(positions, expected, "one works, so none is repeated");
}

#[tokio::test(flavor = "multi_thread")]
async fn streams_go_side_by_side_and_events_of_one_stream_in_their_order() {
    let database = TestDatabase::create().await;
    let (store, client) = (database.store().await, database.client().await);
    for _ in 0..4 {
        for stream in 0..8 {
            add(&store, &stream.to_string(), 1).await;
        }
    }
    let mailer = Mailer { takes: Duration::from_millis(20), concurrency: 5, ..Mailer::new() };
    let running = Running::start(worker(&store, &mailer));
    caught_up(&store, &client).await;
    running.stop().await;
    assert_eq!(mailer.most.load(Ordering::SeqCst), 5);
    assert_eq!(mailer.calls().len(), 32);
    assert_sound(&store, &mailer).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn crashes_repeat_effects_under_the_same_id_and_lose_none() {
    let database = TestDatabase::create().await;
    let (store, client) = (database.store().await, database.client().await);
    let (seed, mut rng) = seeded();
    let mailer = Mailer { takes: Duration::from_millis(1), ..Mailer::new() };
    let mut load = Load::start(&store, seed, 3, 150);
    let mut drops = 0;
    let is_repeated = || {
        let events = mailer.positions().into_iter().collect::<HashSet<_>>().len();
        mailer.calls().len() > events
    };
    while drops < 30 || !load.is_done() || !is_repeated() {
        let worker = worker(&store, &mailer).batch_size(rng.random_range(1..12)).lease(lease(30));
        let running = Running::start(worker);
        tokio::time::sleep(Duration::from_micros(rng.random_range(0..80_000))).await;
        running.abort().await;
        drops += 1;
    }
    load.done().await;
    let running = Running::start(worker(&store, &mailer));
    caught_up(&store, &client).await;
    running.stop().await;
    assert_sound(&store, &mailer).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn its_connections_are_terminated_again_and_again() {
    let database = TestDatabase::create().await;
    let (store, client) = (database.store().await, database.client().await);
    let reader = database.store_as("victim").await;
    let (seed, mut rng) = seeded();
    let mailer = Mailer::new();
    let running = Running::start(worker(&reader, &mailer).batch_size(3).lease(lease(500)));
    let mut load = Load::start(&store, seed, 3, 150);
    let mut killed = 0;
    while killed < 20 || !load.is_done() {
        tokio::time::sleep(Duration::from_millis(rng.random_range(1..120))).await;
        killed += kill(&client, "victim").await;
        assert!(running.is_running(), "it ended: {:?}", running.failure().await);
    }
    load.done().await;
    caught_up(&store, &client).await;
    running.stop().await;
    assert_sound(&store, &mailer).await;
    assert!(parked(&store).await.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn waiting_holds_up_its_stream_and_no_other_and_is_no_failure() {
    let database = TestDatabase::create().await;
    let (store, client) = (database.store().await, database.client().await);
    let slow = add(&store, "slow", 1).await.last_position;
    let behind = add(&store, "slow", 2).await.last_position;
    add(&store, "a", 3).await;
    let is_over = Arc::new(AtomicBool::new(false));
    let over = is_over.clone();
    let mailer = Mailer::new().answering(move |event, _| {
        let waits = event.position == slow && !over.load(Ordering::SeqCst);
        Ok(if waits { Reaction::RetryAfter(Duration::from_millis(100)) } else { Reaction::Done })
    });
    let running = Running::start(worker(&store, &mailer).attempts(2));
    // More often than there are attempts.
    eventually("it waits", || async { mailer.of(slow).len() > 3 }).await;
    assert_eq!(reached(&client).await, slow.get() - 1, "the checkpoint waits with it");
    // Also what comes only now is reacted to.
    let later = add(&store, "b", 4).await.last_position;
    eventually("others go on", || async { mailer.of(later).len() == 1 }).await;
    assert!(mailer.of(behind).is_empty());
    is_over.store(true, Ordering::SeqCst);
    caught_up(&store, &client).await;
    running.stop().await;
    let waits = mailer.of(slow);
    for pair in waits.windows(2) {
        let waited = pair[1].began - pair[0].began;
        assert!(waited >= Duration::from_millis(100), "{waited:?}");
    }
    assert!(parked(&store).await.is_empty());
    assert_eq!(mailer.calls().len(), waits.len() + 3, "what was done meanwhile is not done again");
    assert_sound(&store, &mailer).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_fails_is_tried_so_often_then_parked_and_retried_with_its_stream() {
    let database = TestDatabase::create().await;
    let (store, client) = (database.store().await, database.client().await);
    let bad = add(&store, "bad", 1).await.last_position;
    let behind = add(&store, "bad", 2).await.last_position;
    let panics = add(&store, "panics", 1).await.last_position;
    let refused = add(&store, "refused", 1).await.last_position;
    add(&store, "good", 1).await;
    let mailer = Mailer::new().answering(move |event, _| match event.position {
        position if position == bad => Err("no such address".into()),
        position if position == panics => panic!("on purpose"),
        position if position == refused => Ok(Reaction::park("it is not wanted")),
        _ => Ok(Reaction::Done),
    });
    let running = Running::start(worker(&store, &mailer).attempts(3));
    caught_up(&store, &client).await;
    let found = parked(&store).await;
    assert_eq!(found.iter().map(|one| one.0).collect::<Vec<_>>(), [bad, panics, refused]);
    for ((_, reason), part) in found.iter().zip(["no such address", "on purpose", "not wanted"]) {
        assert!(reason.contains(part), "{reason}");
    }
    assert_eq!((mailer.of(bad).len(), mailer.of(panics).len()), (3, 3));
    assert_eq!((mailer.of(refused).len(), mailer.of(behind).len()), (1, 0));
    let attempts: Vec<_> = mailer.of(bad).iter().map(|call| call.effect.attempt).collect();
    assert_eq!(attempts, [1, 2, 3]);

    mailer.mend();
    let stream = StreamId::new("ledger", "bad").unwrap();
    control::retry(&store, "mailer", Some(&stream)).await.unwrap();
    let refused_stream = StreamId::new("ledger", "refused").unwrap();
    control::discard(&store, "mailer", &refused_stream).await.unwrap();
    eventually("they go on", || async { parked(&store).await.len() == 1 }).await;
    let calls = mailer.calls();
    let last = calls.iter().rfind(|call| call.stream == "ledger-bad").unwrap();
    assert_eq!(last.position, behind.get());
    assert_eq!(mailer.of(refused).len(), 1);
    // They are as good as any other now.
    add(&store, "bad", 3).await;
    add(&store, "refused", 3).await;
    caught_up(&store, &client).await;
    control::retry(&store, "mailer", None).await.unwrap();
    eventually("none is parked", || async { parked(&store).await.is_empty() }).await;
    running.stop().await;
    assert_eq!(mailer.of(behind).len(), 1);
    assert_sound(&store, &mailer).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn waiting_when_it_is_retried_is_no_failure_either() {
    let database = TestDatabase::create().await;
    let (store, client) = (database.store().await, database.client().await);
    let bad = add(&store, "bad", 1).await.last_position;
    add(&store, "bad", 2).await;
    let mailer = Mailer::new().answering(|_, effect| match effect.attempt {
        1 => Ok(Reaction::park("later")),
        _ => Ok(Reaction::Done),
    });
    let running = Running::start(worker(&store, &mailer));
    caught_up(&store, &client).await;
    assert_eq!(parked(&store).await.len(), 1);
    let mailer_ = mailer.clone().answering(|_, effect| match effect.attempt {
        1 | 2 => Ok(Reaction::RetryAfter(Duration::from_millis(50))),
        _ => Ok(Reaction::Done),
    });
    control::retry(&store, "mailer", None).await.unwrap();
    eventually("it is no longer parked", || async { parked(&store).await.is_empty() }).await;
    running.stop().await;
    assert_eq!(mailer_.of(bad).len(), 1 + 3);
    assert_sound(&store, &mailer).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_discarded_is_one_event_even_if_the_rest_has_to_wait() {
    let database = TestDatabase::create().await;
    let (store, client) = (database.store().await, database.client().await);
    let bad = add(&store, "bad", 1).await.last_position;
    add(&store, "bad", 2).await;
    let waits = add(&store, "bad", 3).await.last_position;
    let mailer = Mailer::new().answering(move |event, effect| match event.position {
        position if position == bad => Ok(Reaction::park("never")),
        position if position == waits && effect.attempt < 3 => {
            Ok(Reaction::RetryAfter(Duration::from_millis(50)))
        }
        _ => Ok(Reaction::Done),
    });
    // What is late comes one by one.
    let running = Running::start(worker(&store, &mailer).batch_size(1));
    caught_up(&store, &client).await;
    let stream = StreamId::new("ledger", "bad").unwrap();
    control::discard(&store, "mailer", &stream).await.unwrap();
    eventually("it goes on", || async { parked(&store).await.is_empty() }).await;
    running.stop().await;
    assert_eq!((mailer.of(bad).len(), mailer.of(waits).len()), (1, 3));
    assert_eq!(mailer.calls().len(), 1 + 1 + 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn many_bad_events_among_good_ones_stop_nothing() {
    let database = TestDatabase::create().await;
    let (store, client) = (database.store().await, database.client().await);
    for n in 0..60 {
        add(&store, &n.to_string(), n % 3).await;
    }
    let mailer = Mailer::new().answering(|event, _| match event.event {
        LedgerEvent::Added { amount: 0 } => Err("zero".into()),
        _ => Ok(Reaction::Done),
    });
    let running = Running::start(worker(&store, &mailer).attempts(1).break_after(100));
    caught_up(&store, &client).await;
    assert_eq!(parked(&store).await.len(), 20);
    assert_eq!(state(&store).await, Some(State::Running));
    running.stop().await;
    assert_eq!(mailer.calls().len(), 60, "one failure does not have the others repeated");
}

#[tokio::test(flavor = "multi_thread")]
async fn when_the_target_is_down_it_is_tried_once_in_a_while_and_nothing_is_parked() {
    let database = TestDatabase::create().await;
    let (store, client) = (database.store().await, database.client().await);
    for n in 0..40 {
        add(&store, &(n % 20).to_string(), 1).await;
    }
    let mailer = Mailer { takes: Duration::from_millis(5), ..Mailer::new() }
        .answering(|_, _| Err("connection refused".into()));
    let worker = worker(&store, &mailer)
        .attempts(3)
        .break_after(6)
        .cool_down(Duration::from_millis(200), Duration::from_millis(400));
    let running = Running::start(worker);
    let is_broken = || async { matches!(state(&store).await, Some(State::Broken { .. })) };
    eventually("the breaker is open", is_broken).await;
    let opened = mailer.calls().len();
    assert!(opened <= 16 + 1, "{opened} calls: those that ran when it opened, and a trial");
    let since = Instant::now();
    tokio::time::sleep(Duration::from_millis(1800)).await;
    eventually("it is tried", || async { mailer.calls().len() >= opened + 2 }).await;
    let trials = mailer.calls().split_off(opened);
    let most = since.elapsed().as_millis() / 200 + 1;
    assert!(trials.len() as u128 <= most, "{} trials, not {most}", trials.len());
    for pair in trials.windows(2) {
        let waited = pair[1].began - pair[0].began;
        assert!(waited >= Duration::from_millis(200), "{waited:?} between two trials");
    }
    let streams: HashSet<_> = trials.iter().map(|call| &call.stream).collect();
    assert_eq!(streams.len(), trials.len(), "each time another stream");
    assert!(is_broken().await && parked(&store).await.is_empty());
    assert_eq!(mailer.most.load(Ordering::SeqCst), 16);

    mailer.mend();
    caught_up(&store, &client).await;
    assert_eq!(state(&store).await, Some(State::Running));
    assert!(parked(&store).await.is_empty());
    running.stop().await;
    assert_sound(&store, &mailer).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_bad_event_does_not_keep_the_breaker_open() {
    let database = TestDatabase::create().await;
    let (store, client) = (database.store().await, database.client().await);
    let bad = add(&store, "bad", 1).await.last_position;
    let mailer = Mailer::new().answering(move |event, _| match event.position {
        position if position == bad => Err("always".into()),
        _ => Ok(Reaction::Done),
    });
    let worker = worker(&store, &mailer)
        .attempts(3)
        .break_after(2)
        .cool_down(Duration::from_millis(100), Duration::from_millis(200));
    let running = Running::start(worker);
    eventually("the breaker is open", || async {
        matches!(state(&store).await, Some(State::Broken { .. }))
    })
    .await;
    assert!(parked(&store).await.is_empty(), "it may be the target");
    // What comes now shows that it is not.
    add(&store, "good", 1).await;
    caught_up(&store, &client).await;
    assert_eq!(parked(&store).await.len(), 1);
    assert_eq!(state(&store).await, Some(State::Running));
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_runs_may_end_when_the_worker_stops_and_is_cut_off_if_it_does_not() {
    let database = TestDatabase::create().await;
    let (store, client) = (database.store().await, database.client().await);
    for n in 0..3 {
        add(&store, "a", n).await;
    }
    let mailer = Mailer { takes: Duration::from_millis(300), ..Mailer::new() };
    let running = Running::start(worker(&store, &mailer));
    eventually("it runs", || async { mailer.calls().len() == 1 }).await;
    running.stop().await;
    let calls = mailer.calls();
    assert!(calls.len() == 1 && calls[0].answered, "what runs ends, and nothing else begins");
    assert_eq!(reached(&client).await, calls[0].position, "what it has done counts");

    let endless = Mailer { takes: Duration::from_secs(3600), ..mailer.clone() };
    let worker_ = worker(&store, &endless).stop_within(Duration::from_millis(100));
    let running = Running::start(worker_);
    eventually("it runs", || async { mailer.calls().len() == 2 }).await;
    running.stop().await;
    assert!(!mailer.calls()[1].answered);
    assert_eq!(mailer.running.load(Ordering::SeqCst), 0);
    let running = Running::start(worker(&store, &mailer));
    caught_up(&store, &client).await;
    running.stop().await;
    assert_sound(&store, &mailer).await;
    assert_eq!(mailer.calls().len(), 4);
}

#[tokio::test(flavor = "multi_thread")]
async fn slices_are_shared_and_their_number_changes_when_nobody_works() {
    let database = TestDatabase::create().await;
    let (store, client) = (database.store().await, database.client().await);
    let (seed, _) = seeded();
    let mailer = Mailer { slices: 3, takes: Duration::from_millis(1), ..Mailer::new() };
    let workers: Vec<_> =
        (0..2).map(|_| Running::start(worker(&store, &mailer).lease(lease(1000)))).collect();
    Load::start(&store, seed, 3, 40).done().await;
    caught_up(&store, &client).await;
    let more = Mailer { slices: 2, ..mailer.clone() };
    let next = Running::start(worker(&store, &more));
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(control::status(&store).await.unwrap()[0].slices.len(), 3);
    for worker in workers {
        worker.stop().await;
    }
    let before = mailer.calls().len();
    eventually("they change", || async {
        control::status(&store).await.unwrap()[0].slices.len() == 2
    })
    .await;
    Load::start(&store, seed + 1, 2, 20).done().await;
    caught_up(&store, &client).await;
    next.stop().await;
    assert_sound(&store, &mailer).await;
    let first = mailer.positions()[..before].iter().copied().collect::<HashSet<_>>();
    let again = mailer.positions()[before..].iter().filter(|at| first.contains(at)).count();
    assert_eq!(again, 0, "all slices had come as far, so none is repeated");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_read_model_is_rebuilt_without_a_word_to_reactors() {
    let database = TestDatabase::create().await;
    let (store, client) = (database.store().await, database.client().await);
    let mailer = Mailer::new();
    let running = Running::start(worker(&store, &mailer).projection::<Tally>());
    for n in 0..10 {
        add(&store, &n.to_string(), 1).await;
    }
    caught_up(&store, &client).await;
    annals_projections::Rebuild::<Tally>::of(&store).run().await.unwrap();
    add(&store, "a", 1).await;
    caught_up(&store, &client).await;
    running.stop().await;
    assert_eq!(mailer.calls().len(), 11);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_that_does_not_decode_is_parked_at_once() {
    let database = TestDatabase::create().await;
    let (store, client) = (database.store().await, database.client().await);
    let event = annals_eventstore::NewEvent::raw(
        "unheard-of",
        1,
        annals_eventstore::Payload::from_json("{}").unwrap(),
    );
    let stream = StreamId::new("ledger", "odd").unwrap();
    let any = annals_eventstore::ExpectedVersion::Any;
    store.append(annals_eventstore::Append::to(stream, any, [event])).await.unwrap();
    add(&store, "a", 1).await;
    let mailer = Mailer::new();
    let running = Running::start(worker(&store, &mailer));
    caught_up(&store, &client).await;
    running.stop().await;
    let found = parked(&store).await;
    assert!(found.len() == 1 && found[0].1.contains("unheard-of"), "{found:?}");
    assert_eq!(mailer.calls().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_moment_that_is_not_over_is_no_beginning() {
    let database = TestDatabase::create().await;
    let store = database.store().await;
    let mailer = Mailer { start: Start::Position(Position::new(1_000_000)), ..Mailer::new() };
    let error = Running::start(worker(&store, &mailer)).failure().await;
    assert!(matches!(error, ProjectionError::Store(_)), "{error:?}");
    assert!(control::status(&store).await.unwrap().is_empty());
}
