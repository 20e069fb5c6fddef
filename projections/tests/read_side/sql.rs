//! Projections in SQL, run by workers: each event has its effect once, in the order of its stream.

use std::{
    collections::HashSet,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use annals_eventstore::{EventStore, Position, Recorded, StreamId, postgres::Client as Sql};
use annals_projections::{
    Cause, InlineProjections, OnFailure, ProjectionError, SqlProjection, Worker, async_trait,
    control::{self, Kind, State},
    reset_sql,
};
use rand::Rng;
use tokio_postgres::Client;

use crate::support::{
    Running, catch_up,
    database::{TestDatabase, kill, value},
    eventually, lease,
    ledger::{Ledger, LedgerEvent, Tally, add, append, unrelated},
    load::{Load, append_some, seeded},
    oracle::log,
    text,
};

/// Writes down each event in the order in which it was applied, with what its stream had before: an event that is
/// lost, repeated or out of its stream's order shows.
#[derive(Clone)]
pub(crate) struct Journal {
    categories: Vec<String>,
    version: u32,
    slices: u16,
    /// Positions at which it fails, and whether it was told to.
    fails: Arc<Mutex<HashSet<i64>>>,
    pub(crate) tried: Arc<AtomicU32>,
}

impl Journal {
    pub(crate) fn new() -> Self {
        Self {
            categories: ["ledger", "audit"].map(str::to_owned).to_vec(),
            version: 1,
            slices: 1,
            fails: Arc::default(),
            tried: Arc::default(),
        }
    }

    fn fail_at(&self, position: Position) {
        self.fails.lock().unwrap().insert(position.get());
    }

    fn mend(&self) {
        self.fails.lock().unwrap().clear();
    }
}

#[async_trait]
impl SqlProjection for Journal {
    fn name(&self) -> &str {
        "journal"
    }

    fn categories(&self) -> &[String] {
        &self.categories
    }

    fn version(&self) -> u32 {
        self.version
    }

    fn slices(&self) -> u16 {
        self.slices
    }

    async fn install(&self, sql: &Sql) -> Result<(), Cause> {
        let create = "create table journal (
            number bigint generated always as identity primary key, position bigint not null,
            stream text not null, version bigint not null, made_by int not null)";
        Ok(sql.batch_execute(create).await?)
    }

    async fn reset(&self, sql: &Sql) -> Result<(), Cause> {
        Ok(sql.batch_execute("drop table if exists journal").await?)
    }

    async fn apply(&self, events: &[Recorded], sql: &Sql) -> Result<(), Cause> {
        for event in events {
            let (position, stream) = (event.position.get(), event.stream.to_string());
            let (version, made_by) = (event.version.get(), self.version as i32);
            let insert = "insert into journal (position, stream, version, made_by)
                          values ($1, $2, $3, $4)";
            sql.execute(insert, &[&position, &stream, &version, &made_by]).await?;
            if self.fails.lock().unwrap().contains(&position) {
                self.tried.fetch_add(1, Ordering::Relaxed);
                return Err("told to fail".into());
            }
        }
        Ok(())
    }
}

fn worker(store: &EventStore, journal: &Journal) -> Worker {
    Worker::new(store).sql(journal.clone()).poll_interval(Duration::from_millis(20))
}

async fn reached(client: &Client) -> i64 {
    let sql = "select coalesce(annals.reached('projection:journal'), -1)";
    value(client, sql).await
}

async fn caught_up(store: &EventStore, client: &Client) {
    let end = store.safe_position().await.unwrap().get();
    eventually("it has caught up", || async { reached(client).await >= end }).await;
}

async fn run(store: &EventStore, client: &Client, journal: &Journal) {
    let running = Running::start(worker(store, journal));
    caught_up(store, client).await;
    running.stop().await;
}

/// Each event once, and those of a stream in their order. Where nothing was parked, all are in the order of the log.
async fn assert_exact(store: &EventStore, client: &Client, ordered: bool) {
    let rows = client.query("select position, stream from journal order by number", &[]).await;
    let rows = rows.unwrap();
    let mut found: Vec<(i64, String)> = rows.iter().map(|row| (row.get(0), row.get(1))).collect();
    let log = log(store).await;
    let mine = log.iter().filter(|event| ["ledger", "audit"].contains(&event.stream.category()));
    let expected: Vec<_> =
        mine.map(|event| (event.position.get(), event.stream.to_string())).collect();
    if !ordered {
        // Sorting by stream alone is stable: what is out of order in a stream stays so.
        found.sort_by(|a, b| a.1.cmp(&b.1));
        let mut expected = expected;
        expected.sort_by(|a, b| a.1.cmp(&b.1));
        assert_eq!(found, expected);
        return;
    }
    assert_eq!(found, expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn each_event_has_its_effect_once_and_in_order() {
    let database = TestDatabase::create().await;
    let (store, client) = (database.store().await, database.client().await);
    let (seed, _) = seeded();
    let journal = Journal::new();
    Load::start(&store, seed, 2, 30).done().await;
    run(&store, &client, &journal).await;
    assert_exact(&store, &client, true).await;
    // Started again, it goes on where it was.
    Load::start(&store, seed + 7, 2, 30).done().await;
    run(&store, &client, &journal).await;
    assert_exact(&store, &client, true).await;
    let status = control::status(&store).await.unwrap();
    assert_eq!((&*status[0].name, status[0].kind, status[0].behind), ("journal", Kind::Sql, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn dropped_after_every_number_of_steps() {
    let database = TestDatabase::create().await;
    let (store, client) = (database.store().await, database.client().await);
    let (_, mut rng) = seeded();
    let journal = Journal::new();
    for steps in 1..60 {
        append_some(&store, &mut rng).await;
        append_some(&store, &mut rng).await;
        let run = worker(&store, &journal).batch_size(2).lease(lease(1)).run();
        let mut run = std::pin::pin!(run);
        let mut left = steps;
        std::future::poll_fn(|cx| {
            left -= 1;
            assert!(run.as_mut().poll(cx).is_pending(), "a worker runs on");
            if left == 0 { std::task::Poll::Ready(()) } else { std::task::Poll::Pending }
        })
        .await;
    }
    run(&store, &client, &journal).await;
    assert_exact(&store, &client, true).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn dropped_at_random_moments_under_load() {
    let database = TestDatabase::create().await;
    let (store, client) = (database.store().await, database.client().await);
    let (seed, mut rng) = seeded();
    let journal = Journal::new();
    let mut load = Load::start(&store, seed, 3, 200);
    let mut drops = 0;
    // Some of them come to work before they are dropped.
    let taken = "select coalesce(max(epoch), 0) from annals.leases";
    while drops < 30 || !load.is_done() || value::<i64>(&client, taken).await <= 5 {
        let batch_size = rng.random_range(1..12);
        let running =
            Running::start(worker(&store, &journal).batch_size(batch_size).lease(lease(30)));
        tokio::time::sleep(Duration::from_micros(rng.random_range(0..80_000))).await;
        running.abort().await;
        drops += 1;
    }
    load.done().await;
    run(&store, &client, &journal).await;
    assert_exact(&store, &client, true).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn its_connections_are_terminated_again_and_again() {
    let database = TestDatabase::create().await;
    let (store, client) = (database.store().await, database.client().await);
    let reader = database.store_as("victim").await;
    let (seed, mut rng) = seeded();
    let journal = Journal::new();
    let running = Running::start(worker(&reader, &journal).batch_size(3).lease(lease(500)));
    let mut load = Load::start(&store, seed, 3, 200);
    let mut killed = 0;
    while killed < 20 || !load.is_done() {
        tokio::time::sleep(Duration::from_millis(rng.random_range(1..120))).await;
        killed += kill(&client, "victim").await;
        assert!(running.is_running(), "it ended: {:?}", running.failure().await);
    }
    load.done().await;
    caught_up(&store, &client).await;
    running.stop().await;
    assert_exact(&store, &client, true).await;
    assert!(control::parked(&store, None).await.unwrap().is_empty(), "no event was to blame");
}

#[tokio::test(flavor = "multi_thread")]
async fn slices_are_shared_and_each_event_has_its_effect_once() {
    let database = TestDatabase::create().await;
    let (store, client) = (database.store().await, database.client().await);
    let (seed, _) = seeded();
    let journal = Journal { slices: 3, ..Journal::new() };
    let workers: Vec<_> =
        (0..2).map(|_| Running::start(worker(&store, &journal).lease(lease(500)))).collect();
    Load::start(&store, seed, 3, 60).done().await;
    caught_up(&store, &client).await;
    for worker in workers {
        worker.stop().await;
    }
    assert_exact(&store, &client, false).await;
    let slices = control::status(&store).await.unwrap().remove(0).slices;
    assert_eq!(slices.len(), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_fails_is_tried_again_then_parked_and_retried_in_order() {
    let database = TestDatabase::create().await;
    let (store, client) = (database.store().await, database.client().await);
    let journal = Journal::new();
    add(&store, "a", 1).await;
    let bad = add(&store, "a", 2).await.last_position;
    add(&store, "b", 3).await;
    add(&store, "a", 4).await;
    journal.fail_at(bad);
    let running = Running::start(worker(&store, &journal).attempts(4));
    caught_up(&store, &client).await;
    let parked = control::parked(&store, Some("journal")).await.unwrap();
    assert_eq!(parked.len(), 1);
    assert_eq!((parked[0].position, parked[0].stream.key()), (bad, "a"));
    assert!(parked[0].reason.contains("told to fail"), "{}", parked[0].reason);
    // With all, in the half that has it, then alone, as often as that is to be tried.
    let tried = journal.tried.load(Ordering::Relaxed);
    assert_eq!(tried, 2 + 4);
    let applied: String = value(&client, "select string_agg(stream, ' ') from journal").await;
    assert_eq!(applied, "ledger-a ledger-b", "what failed has left nothing behind");

    // It fails again, and stays; then it is mended.
    let stream = StreamId::new("ledger", "a").unwrap();
    control::retry(&store, "journal", Some(&stream)).await.unwrap();
    eventually("it is tried again", || async {
        let parked = control::parked(&store, None).await.unwrap();
        parked[0].attempts == 2 && !parked[0].asked
    })
    .await;
    journal.mend();
    control::retry(&store, "journal", None).await.unwrap();
    eventually("it is no longer parked", || async {
        control::parked(&store, None).await.unwrap().is_empty()
    })
    .await;
    add(&store, "a", 5).await;
    caught_up(&store, &client).await;
    running.stop().await;
    assert_exact(&store, &client, false).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failure_that_passes_parks_nothing() {
    let database = TestDatabase::create().await;
    let (store, client) = (database.store().await, database.client().await);
    let journal = Journal::new();
    add(&store, "a", 1).await;
    let bad = add(&store, "b", 2).await.last_position;
    add(&store, "c", 3).await;
    journal.fail_at(bad);
    let running = Running::start(worker(&store, &journal).attempts(1000).break_after(1000));
    eventually("it has failed", || async { journal.tried.load(Ordering::Relaxed) > 2 }).await;
    assert_eq!(reached(&client).await, bad.get() - 1, "all before it, nothing behind it");
    journal.mend();
    caught_up(&store, &client).await;
    running.stop().await;
    assert_exact(&store, &client, true).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_discarded_event_is_left_out_and_the_rest_of_its_stream_is_not() {
    let database = TestDatabase::create().await;
    let (store, client) = (database.store().await, database.client().await);
    let journal = Journal::new();
    let bad = add(&store, "a", 1).await.last_position;
    add(&store, "a", 2).await;
    add(&store, "a", 3).await;
    journal.fail_at(bad);
    // In parts, of which the first alone is to be left out.
    let running = Running::start(worker(&store, &journal).attempts(1).batch_size(1));
    eventually("it is parked", || async {
        !control::parked(&store, None).await.unwrap().is_empty()
    })
    .await;
    let stream = StreamId::new("ledger", "a").unwrap();
    assert!(control::discard(&store, "journal", &stream).await.unwrap());
    eventually("it goes on", || async { control::parked(&store, None).await.unwrap().is_empty() })
        .await;
    caught_up(&store, &client).await;
    running.stop().await;
    let versions: Vec<i64> =
        value(&client, "select array_agg(version order by number) from journal").await;
    assert_eq!(versions, [2, 3]);
}

#[tokio::test(flavor = "multi_thread")]
async fn told_to_stop_at_a_failure_it_ends_before_that() {
    let database = TestDatabase::create().await;
    let (store, client) = (database.store().await, database.client().await);
    let journal = Journal::new();
    add(&store, "a", 1).await;
    let bad = add(&store, "b", 2).await.last_position;
    journal.fail_at(bad);
    let stopping = worker(&store, &journal).attempts(2).on_failure(OnFailure::Stop);
    let error = Running::start(stopping).failure().await;
    assert!(text(&error).contains("told to fail"), "{}", text(&error));
    assert_eq!(reached(&client).await, bad.get() - 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_table_is_no_events_fault() {
    let database = TestDatabase::create().await;
    let (store, client) = (database.store().await, database.client().await);
    let journal = Journal::new();
    add(&store, "a", 1).await;
    run(&store, &client, &journal).await;
    client.batch_execute("alter table journal rename to hidden").await.unwrap();
    add(&store, "a", 2).await;
    let error = Running::start(worker(&store, &journal)).failure().await;
    assert!(text(&error).contains("journal") && !error.is_retryable(), "{}", text(&error));
    assert!(control::parked(&store, None).await.unwrap().is_empty());
    client.batch_execute("alter table hidden rename to journal").await.unwrap();
    run(&store, &client, &journal).await;
    assert_exact(&store, &client, true).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn when_all_fails_nothing_more_is_parked_until_a_trial_succeeds() {
    let database = TestDatabase::create().await;
    let (store, client) = (database.store().await, database.client().await);
    let journal = Journal::new();
    for n in 0..10 {
        journal.fail_at(add(&store, &n.to_string(), 1).await.last_position);
    }
    let (first, most) = (Duration::from_millis(150), Duration::from_millis(600));
    let worker =
        || worker(&store, &journal).attempts(3).break_after(5).cool_down(first, most).batch_size(4);
    let running = Running::start(worker());
    let broken = || async {
        let is_broken = |state: &State| match state {
            State::Broken { reason, .. } => reason.contains("told to fail"),
            _ => false,
        };
        control::status(&store).await.unwrap().iter().any(|status| is_broken(&status.state))
    };
    eventually("the breaker is open", broken).await;
    let parked = control::parked(&store, None).await.unwrap().len();
    assert_eq!(parked, 1, "three failures of the first, two of the second");
    let tried = journal.tried.load(Ordering::Relaxed);
    tokio::time::sleep(Duration::from_millis(1200)).await;
    let trials = journal.tried.load(Ordering::Relaxed) - tried;
    assert!((1..=4).contains(&trials), "{trials} trials, with waits of 150, 300, 600 ms");
    assert_eq!(control::parked(&store, None).await.unwrap().len(), parked);
    // It is not forgotten by the next worker.
    running.stop().await;
    let running = Running::start(worker());
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert!(broken().await);
    assert_eq!(control::parked(&store, None).await.unwrap().len(), parked);

    journal.mend();
    caught_up(&store, &client).await;
    let status = control::status(&store).await.unwrap().remove(0);
    assert_eq!(status.state, State::Running);
    control::retry(&store, "journal", None).await.unwrap();
    eventually("nothing is parked", || async {
        control::parked(&store, None).await.unwrap().is_empty()
    })
    .await;
    running.stop().await;
    assert_exact(&store, &client, false).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn resuming_closes_the_breaker() {
    let database = TestDatabase::create().await;
    let (store, client) = (database.store().await, database.client().await);
    let journal = Journal::new();
    for n in 0..3 {
        journal.fail_at(add(&store, &n.to_string(), 1).await.last_position);
    }
    let hour = Duration::from_secs(3600);
    let worker = worker(&store, &journal).attempts(2).break_after(1).cool_down(hour, hour);
    let running = Running::start(worker);
    eventually("the breaker is open", || async {
        let status = control::status(&store).await.unwrap();
        status.iter().any(|status| matches!(status.state, State::Broken { .. }))
    })
    .await;
    assert!(control::parked(&store, None).await.unwrap().is_empty());
    journal.mend();
    control::resume(&store, "journal").await.unwrap();
    caught_up(&store, &client).await;
    running.stop().await;
    assert_exact(&store, &client, true).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn another_version_builds_it_anew_when_the_earlier_one_has_ended() {
    let database = TestDatabase::create().await;
    let (store, client) = (database.store().await, database.client().await);
    let (seed, _) = seeded();
    let old = Journal::new();
    let running = Running::start(worker(&store, &old));
    Load::start(&store, seed, 2, 20).done().await;
    caught_up(&store, &client).await;

    let new = Journal { version: 2, ..Journal::new() };
    let next = Running::start(worker(&store, &new));
    tokio::time::sleep(Duration::from_millis(500)).await;
    let made_by: i32 = value(&client, "select max(made_by) from journal").await;
    assert_eq!(made_by, 1, "the earlier version is still at work");
    assert!(next.is_running() && running.is_running());
    running.stop().await;
    eventually("it is built anew", || async {
        value::<i64>(&client, "select count(*) from journal where made_by = 1").await == 0
    })
    .await;
    caught_up(&store, &client).await;
    assert_exact(&store, &client, true).await;
    // The earlier version does not take it back, and neither does one that must not rebuild take it on.
    next.stop().await;
    let error = Running::start(worker(&store, &old)).failure().await;
    assert!(matches!(error, ProjectionError::Outdated { .. }), "{error:?}");
    let newest = Journal { version: 3, ..Journal::new() };
    let error = Running::start(worker(&store, &newest).without_rebuilding()).failure().await;
    assert!(matches!(error, ProjectionError::Outdated { .. }), "{error:?}");
    // Nor do other slices of the same one stay what they were.
    let sliced = Journal { version: 2, slices: 2, ..Journal::new() };
    let running = Running::start(worker(&store, &sliced));
    eventually("it has other slices", || async {
        let status = control::status(&store).await.unwrap().remove(0);
        (status.version, status.slices.len()) == (2, 2)
    })
    .await;
    caught_up(&store, &client).await;
    running.stop().await;
    assert_exact(&store, &client, false).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reset_takes_everything_away() {
    let database = TestDatabase::create().await;
    let (store, client) = (database.store().await, database.client().await);
    let journal = Journal::new();
    let bad = add(&store, "a", 1).await.last_position;
    journal.fail_at(bad);
    let running = Running::start(worker(&store, &journal).attempts(1));
    caught_up(&store, &client).await;
    let refused = reset_sql(&store, &journal).await;
    assert!(matches!(refused, Err(ProjectionError::InUse { .. })), "{refused:?}");
    running.stop().await;
    reset_sql(&store, &journal).await.unwrap();
    let left: Option<String> = value(&client, "select to_regclass('journal')::text").await;
    assert_eq!(left, None);
    assert!(control::status(&store).await.unwrap().is_empty());
    assert!(control::parked(&store, None).await.unwrap().is_empty());
    journal.mend();
    run(&store, &client, &journal).await;
    assert_exact(&store, &client, true).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn inline_it_is_run_by_no_worker_and_a_name_has_one_owner() {
    let database = TestDatabase::create().await;
    let (store, client) = (database.store().await, database.client().await);
    let journal = Journal::new();
    add(&store, "a", 1).await;
    run(&store, &client, &journal).await;
    // From a worker to inline, and back.
    add(&store, "a", 2).await;
    let inline = store.with_inline_sql(journal.clone()).await.unwrap();
    add(&inline, "a", 3).await;
    unrelated(&inline, "a").await;
    assert_exact(&store, &client, true).await;
    let status = control::status(&store).await.unwrap().remove(0);
    assert_eq!((status.state, status.kind), (State::Inline, Kind::Sql));
    let error = Running::start(worker(&store, &journal)).failure().await;
    assert!(matches!(error, ProjectionError::RunsInline { .. }), "{error:?}");
    let other = Journal { version: 2, ..Journal::new() };
    let error = store.with_inline_sql(other).await.err().unwrap();
    assert!(matches!(error, ProjectionError::Outdated { .. }), "{error:?}");
    reset_sql(&store, &journal).await.unwrap();
    run(&store, &client, &journal).await;
    assert_exact(&store, &client, true).await;

    catch_up::<Tally>(&store).await;
    let error = Running::start(Worker::new(&store).sql(Namesake)).failure().await;
    assert!(matches!(&error, ProjectionError::NameTaken { kind: Kind::Rows, .. }), "{error:?}");
}

/// Takes the name of a read model.
struct Namesake;

#[async_trait]
impl SqlProjection for Namesake {
    fn name(&self) -> &str {
        "tallies"
    }

    fn categories(&self) -> &[String] {
        &[]
    }

    async fn apply(&self, _: &[Recorded], _: &Sql) -> Result<(), Cause> {
        Ok(())
    }
}

/// Does what one must not do with the connection.
struct Careless;

#[async_trait]
impl SqlProjection for Careless {
    fn name(&self) -> &str {
        "careless"
    }

    fn categories(&self) -> &[String] {
        static CATEGORIES: std::sync::LazyLock<Vec<String>> =
            std::sync::LazyLock::new(|| vec!["ledger".to_owned()]);
        &CATEGORIES
    }

    async fn install(&self, sql: &Sql) -> Result<(), Cause> {
        Ok(sql.batch_execute("create table careless (stream text unique)").await?)
    }

    async fn apply(&self, events: &[Recorded], sql: &Sql) -> Result<(), Cause> {
        for event in events {
            if event.stream.key() == "panic" {
                panic!("on purpose");
            }
            let insert = "insert into careless values ($1)";
            // A failure that nobody looks at.
            let _ = sql.execute(insert, &[&event.stream.key()]).await;
        }
        Ok(())
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_statement_whose_failure_is_not_looked_at_and_a_panic_park_their_events() {
    let database = TestDatabase::create().await;
    let (store, client) = (database.store().await, database.client().await);
    append::<Ledger>(&store, "a", [LedgerEvent::Noted]).await;
    append::<Ledger>(&store, "panic", [LedgerEvent::Noted]).await;
    // It breaks the constraint.
    append::<Ledger>(&store, "a", [LedgerEvent::Noted]).await;
    append::<Ledger>(&store, "b", [LedgerEvent::Noted]).await;
    let worker = Worker::new(&store).sql(Careless).attempts(2);
    let running = Running::start(worker);
    let end = store.safe_position().await.unwrap().get();
    eventually("it is done", || async {
        let sql = "select coalesce(annals.reached('projection:careless'), -1)";
        value::<i64>(&client, sql).await >= end
    })
    .await;
    running.stop().await;
    let parked = control::parked(&store, None).await.unwrap();
    let parked: Vec<_> = parked.iter().map(|one| (one.stream.key(), one.version.get())).collect();
    assert_eq!(parked, [("panic", 1), ("a", 2)]);
    let written: String =
        value(&client, "select string_agg(stream, ' ' order by stream) from careless").await;
    assert_eq!(written, "a b");
}
