//! Inline projections: never behind, never bypassed, and in order however many append at once.

use std::sync::atomic::{AtomicBool, Ordering};

use annals_eventstore::{
    Append, AsOf, Error, EventStore, ExpectedVersion, NewEvent, Position, Recorded, StreamId,
    postgres::{Client, SqlProjection},
};
use annals_projections::{
    Change, Consistency, InlineProjections, KeyError, Keys, Project, ProjectionError,
    QueryReadModels, ReadModel, reset,
};
use rand::{Rng, SeedableRng, rngs::StdRng};
use tokio::task::JoinSet;

use crate::support::{
    catch_up,
    database::{TestDatabase, refusal, value},
    eventually, in_time,
    ledger::{Add, Audit, AuditEvent, Ledger, LedgerEvent, Tally, add, append, unrelated},
    load::{Load, seeded},
    oracle::{assert_exact, assert_sound, fold, log, sorted},
    text, worker,
};

fn ledger(key: &str) -> StreamId {
    StreamId::new("ledger", key).unwrap()
}

fn event(event: LedgerEvent) -> NewEvent {
    NewEvent::of(&event).unwrap()
}

/// The row, strongly consistent.
async fn row(store: &EventStore, key: &str) -> Option<Tally> {
    let query = store.query::<Tally>().consistency(Consistency::Strong);
    query.get(&key.to_owned()).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_are_up_to_date_when_an_append_returns() {
    let database = TestDatabase::create().await;
    let store = database.store().await.with_inline::<Tally>().await.unwrap();
    store.execute(Add { ledger: "a".to_owned(), amount: 1 }).await.unwrap();
    assert_eq!(row(&store, "a").await.unwrap().total, 1);
    add(&store, "a", 2).await;
    assert_eq!(row(&store, "a").await.unwrap().total, 3);
    let commands = ["a", "b"].map(|ledger| Add { ledger: ledger.to_owned(), amount: 4 });
    store.execute_all(commands).await.unwrap();
    let mut unit = store.begin().await.unwrap();
    unit.execute(Add { ledger: "b".to_owned(), amount: 8 }).await.unwrap();
    let shared = LedgerEvent::Shared { ledgers: vec!["a".to_owned(), "b".to_owned()], amount: 16 };
    unit.append(Append::to(ledger("c"), ExpectedVersion::NoStream, [event(shared)])).await.unwrap();
    assert_eq!(row(&store, "b").await.unwrap().total, 4, "not before the commit");
    let committed = unit.commit().await.unwrap();
    assert_eq!(row(&store, "a").await.unwrap().total, 23);
    assert_eq!(row(&store, "b").await.unwrap().total, 28);
    // As of a moment, also from SQL.
    let then = AsOf::Position(Position::new(committed.first_position.get() - 1));
    let query = || store.query::<Tally>().consistency(Consistency::Strong);
    let before = query().as_of(then).get(&"b".to_owned()).await.unwrap().unwrap();
    assert_eq!(before.total, 4);
    let client = database.client().await;
    let sql = format!(
        "select total from tallies_as_of({}::bigint) where ledger = 'b'",
        committed.last_position
    );
    assert_eq!(value::<i64>(&client, &sql).await, 28);
    let beyond = Position::new(committed.last_position.get() + 1);
    let future = query().as_of(AsOf::Position(beyond)).all().await;
    assert!(matches!(future, Err(ProjectionError::NotReached { .. })), "{future:?}");
    let sql = format!("select total from tallies_as_of({beyond}::bigint)");
    assert_eq!(refusal(&client, &sql).await.0, "AN004");
    client.batch_execute("begin isolation level repeatable read").await.unwrap();
    assert_eq!(refusal(&client, "select total from tallies_as_of(1::bigint)").await.0, "AN005");
    client.batch_execute("rollback").await.unwrap();
    assert_exact::<Tally>(&store, &client).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_committed_leaves_no_trace_in_rows() {
    let database = TestDatabase::create().await;
    let store = database.store().await.with_inline::<Tally>().await.unwrap();
    add(&store, "a", 1).await;
    let mut unit = store.begin().await.unwrap();
    unit.execute(Add { ledger: "a".to_owned(), amount: 2 }).await.unwrap();
    drop(unit);
    let mut unit = store.begin().await.unwrap();
    unit.execute(Add { ledger: "a".to_owned(), amount: 4 }).await.unwrap();
    add(&store, "a", 8).await;
    assert!(matches!(unit.commit().await, Err(Error::Conflict { .. })));
    let expected = ExpectedVersion::NoStream;
    let lost = Append::to(ledger("a"), expected, [event(LedgerEvent::Added { amount: 16 })]);
    assert!(matches!(store.append(lost).await, Err(Error::Conflict { .. })));
    // What fails after it was projected.
    let client = database.client().await;
    client
        .batch_execute(
            "create table notes (number bigint primary key);
             create table parts (note bigint references notes deferrable initially deferred)",
        )
        .await
        .unwrap();
    let mut unit = store.begin().await.unwrap();
    unit.execute(Add { ledger: "b".to_owned(), amount: 32 }).await.unwrap();
    unit.sql().unwrap().execute("insert into parts values (1)", &[]).await.unwrap();
    assert!(matches!(unit.commit().await, Err(Error::Database { .. })));
    assert_eq!(row(&store, "a").await.unwrap().total, 9);
    assert_eq!(row(&store, "b").await, None);
    assert_exact::<Tally>(&store, &client).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_without_it_cannot_bypass_it() {
    let database = TestDatabase::create().await;
    let plain = database.store().await;
    let store = plain.with_inline::<Tally>().await.unwrap();
    let other = database.store().await;
    for store in [&plain, &other] {
        let added = store.execute(Add { ledger: "a".to_owned(), amount: 1 }).await;
        let error = added.expect_err("it bypasses");
        assert!(text(&error).contains("projection:tallies"), "{}", text(&error));
        let append = || Append::to(ledger("a"), ExpectedVersion::Any, [event(LedgerEvent::Noted)]);
        let appended = store.append(append()).await;
        assert!(matches!(appended, Err(Error::BypassesInline { .. })), "{appended:?}");
        let mut unit = store.begin().await.unwrap();
        unit.append(append()).await.unwrap();
        let committed = unit.commit().await;
        assert!(matches!(committed, Err(Error::BypassesInline { .. })), "{committed:?}");
        // What it does not see goes through, also beside what is refused.
        let refused = store.append(append());
        let (refused, _) = tokio::join!(refused, unrelated(store, "x"));
        assert!(refused.is_err());
    }
    add(&store, "a", 1).await;
    assert_eq!(log(&store).await.len(), 3);
    assert_exact::<Tally>(&store, &database.client().await).await;
    let strong = other.query::<Tally>().consistency(Consistency::Strong);
    assert_eq!(strong.all().await.unwrap().len(), 1, "every store may ask");
}

#[tokio::test(flavor = "multi_thread")]
async fn strong_consistency_is_not_pretended() {
    let database = TestDatabase::create().await;
    let store = database.store().await;
    catch_up::<Tally>(&store).await;
    let asked = store.query::<Tally>().consistency(Consistency::Strong).all().await;
    assert!(matches!(asked, Err(ProjectionError::NotInline { .. })), "{asked:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_with_history_is_caught_up_first() {
    let (seed, _) = seeded();
    let database = TestDatabase::create().await;
    let store = database.store().await;
    let appends = Load::start(&store, seed, 3, 60);
    appends.done().await;
    let end = store.safe_position().await.unwrap();
    let inline = store.with_inline::<Tally>().await.unwrap();
    let client = database.client().await;
    assert_exact::<Tally>(&inline, &client).await;
    assert!(inline.safe_position().await.unwrap() >= end);
    Load::start(&inline, seed + 100, 3, 30).done().await;
    assert_exact::<Tally>(&inline, &client).await;
    // Again, from another program.
    let again = database.store().await.with_inline::<Tally>().await.unwrap();
    Load::start(&again, seed + 200, 2, 20).done().await;
    assert_exact::<Tally>(&again, &client).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn it_is_registered_in_the_middle_of_appends() {
    let (seed, mut rng) = seeded();
    let database = TestDatabase::create().await;
    let client = database.client().await;
    let plain = database.store().await;
    let stop = std::sync::Arc::new(AtomicBool::new(false));
    // Programs without the projection append until they are refused; programs with it, from then on.
    let mut tasks = JoinSet::new();
    for _ in 0..4 {
        let (plain, stop) = (plain.clone(), stop.clone());
        let seed = rng.random();
        tasks.spawn(async move {
            let mut rng = StdRng::seed_from_u64(seed);
            let mut recorded = 0;
            while !stop.load(Ordering::Relaxed) {
                let ledgers = (0..3).map(|_| rng.random_range(0..4).to_string()).collect();
                let shared = LedgerEvent::Shared { ledgers, amount: 1 };
                let stream = ledger(&rng.random_range(0..4).to_string());
                let append = Append::to(stream, ExpectedVersion::Any, [event(shared)]);
                match plain.append(append).await {
                    Ok(_) => recorded += 1,
                    Err(Error::BypassesInline { .. }) => break,
                    Err(error) => panic!("{error:?}"),
                }
            }
            recorded
        });
    }
    eventually("there is something to catch up", || async {
        plain.safe_position().await.unwrap() > Position::new(100)
    })
    .await;
    // Two programs at once.
    let other = database.store().await;
    let (one, two) = tokio::join!(plain.with_inline::<Tally>(), other.with_inline::<Tally>());
    let (one, two) = (one.unwrap(), two.unwrap());
    Load::start(&one, seed, 2, 20).done().await;
    Load::start(&two, seed + 50, 2, 20).done().await;
    let recorded = in_time(tasks.join_all()).await;
    stop.store(true, Ordering::Relaxed);
    assert!(recorded.iter().sum::<i32>() > 0);
    assert_exact::<Tally>(&one, &client).await;
}

/// Units and appends of many tasks and of two programs on few rows, which several streams feed.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn rows_and_history_are_the_fold_of_the_log_under_load() {
    const ROWS: [&str; 4] = ["a", "b", "c", "d"];
    let (seed, mut rng) = seeded();
    let database = TestDatabase::create().await;
    let client = database.client().await;
    let options = || EventStore::options().connections(annals_eventstore::postgres::Use::Unit, 12);
    let one = database.store_with(options()).await.with_inline::<Tally>().await.unwrap();
    let two = database.store_with(options()).await.with_inline::<Tally>().await.unwrap();
    let mut tasks = JoinSet::new();
    for task in 0..10 {
        let store = [&one, &two][task % 2].clone();
        let seed = rng.random();
        tasks.spawn(async move {
            let mut rng = StdRng::seed_from_u64(seed);
            let row = |rng: &mut StdRng| ROWS[rng.random_range(0..ROWS.len())].to_owned();
            for round in 0..25 {
                let mut unit = store.begin().await.unwrap();
                for _ in 0..rng.random_range(1..3) {
                    // Streams of this task's own, so that only rows are shared.
                    let stream = ledger(&format!("{task} {}", rng.random_range(0..2)));
                    let ledgers = (0..rng.random_range(1..4)).map(|_| row(&mut rng)).collect();
                    let shared = LedgerEvent::Shared { ledgers, amount: rng.random_range(1..9) };
                    let append = Append::to(stream, ExpectedVersion::Any, [event(shared)]);
                    unit.append(append).await.unwrap();
                }
                if rng.random_bool(0.3) {
                    let audit = AuditEvent::Passed { ledger: row(&mut rng) };
                    let stream = StreamId::new("audit", task).unwrap();
                    let audit = NewEvent::of(&audit).unwrap();
                    unit.append(Append::to(stream, ExpectedVersion::Any, [audit])).await.unwrap();
                }
                match round % 5 {
                    0 => drop(unit),
                    _ => drop(unit.commit().await.unwrap()),
                }
                if rng.random_bool(0.2) {
                    append::<Ledger>(&store, &row(&mut rng), [LedgerEvent::Closed]).await;
                    append::<Audit>(&store, "x", [AuditEvent::Passed { ledger: row(&mut rng) }])
                        .await;
                }
            }
        });
    }
    let load = Load::start(&one, seed, 2, 40);
    in_time(tasks.join_all()).await;
    load.done().await;
    assert_exact::<Tally>(&one, &client).await;
    assert_sound::<Tally>(&client).await;
    // At every position, from Rust.
    let log = log(&one).await;
    for at in log.iter().step_by(17).map(|event| event.position) {
        let query = two.query::<Tally>().consistency(Consistency::Strong);
        let found = query.as_of(AsOf::Position(at)).all().await.unwrap();
        let expected = fold::<Tally>(&log, at).rows.into_values();
        assert_eq!(sorted(found), sorted(expected), "as of {at}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_read_model_is_run_inline_or_by_a_worker_and_not_by_both() {
    let database = TestDatabase::create().await;
    let plain = database.store().await;
    let store = plain.with_inline::<Tally>().await.unwrap();
    add(&store, "a", 1).await;
    let failure = in_time(worker::<Tally>(&store).run()).await;
    assert!(matches!(failure, Err(ProjectionError::RunsInline { .. })), "{failure:?}");
    reset::<Tally>(&store).await.unwrap();
    // A program that still runs it does not write past the worker that now does.
    let appended = store.execute(Add { ledger: "a".to_owned(), amount: 1 }).await;
    assert!(text(&appended.unwrap_err()).contains("not registered any more"));
    add(&plain, "a", 2).await;
    catch_up::<Tally>(&plain).await;
    assert_exact::<Tally>(&plain, &database.client().await).await;
    // And back: from where the worker has come.
    add(&plain, "a", 4).await;
    let store = plain.with_inline::<Tally>().await.unwrap();
    add(&store, "a", 8).await;
    assert_eq!(row(&store, "a").await.unwrap().total, 15);
    assert_exact::<Tally>(&store, &database.client().await).await;
}

/// Its keys are numbers, and name the position of some events.
#[derive(ReadModel, Clone, Debug)]
#[read_model(table = "numbered", from(Ledger))]
struct Numbered {
    #[read_model(key)]
    number: i64,
}

impl Project<LedgerEvent> for Numbered {
    fn keys(event: &Recorded<LedgerEvent>) -> Result<Keys<i64>, KeyError> {
        Ok(match &event.event {
            LedgerEvent::Closed => Keys::one(event.position.get()),
            LedgerEvent::Noted => Keys::many(0..100),
            _ => Keys::one(event.stream.key().parse().map_err(|_| KeyError {
                key: event.stream.key().to_owned(),
                reason: "it is no number".to_owned(),
            })?),
        })
    }

    fn project_row(key: &i64, _: Option<Self>, _: &Recorded<LedgerEvent>) -> Change<Self> {
        Change::Set(Self { number: *key })
    }

    fn project(row: Option<Self>, _: &Recorded<LedgerEvent>) -> Change<Self> {
        row.map_or(Change::Keep, Change::Set)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_append_that_cannot_be_projected_fails() {
    let database = TestDatabase::create().await;
    let store = database.store().await.with_inline::<Numbered>().await.unwrap();
    for (key, event_, reason) in [
        ("x", LedgerEvent::Added { amount: 1 }, "it is no number"),
        ("1", LedgerEvent::Closed, "must not look at position"),
    ] {
        let append = Append::to(ledger(key), ExpectedVersion::Any, [event(event_)]);
        match store.append(append).await {
            Err(error @ Error::Inline { .. }) => {
                assert!(text(&error).contains(reason), "{}", text(&error));
                assert!(!error.is_retryable());
            }
            other => panic!("{other:?}"),
        }
    }
    assert!(log(&store).await.is_empty());
    // Many rows at once.
    append::<Ledger>(&store, "1", [LedgerEvent::Noted]).await;
    add(&store, "200", 1).await;
    let rows = store.query::<Numbered>().consistency(Consistency::Strong).all().await.unwrap();
    assert_eq!(rows.len(), 101);
}

/// Counts the events of ledgers in a table of its own.
struct Counts {
    categories: Vec<String>,
}

#[async_trait::async_trait]
impl SqlProjection for Counts {
    fn name(&self) -> &str {
        "counts"
    }

    fn categories(&self) -> &[String] {
        &self.categories
    }

    async fn apply(
        &self,
        events: &[Recorded],
        sql: &Client,
    ) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
        for event in events {
            let number: i64 = sql.query_one("select count(*) from counts", &[]).await?.get(0);
            let position = event.position.get();
            sql.execute("insert into counts values ($1, $2)", &[&(number + 1), &position]).await?;
        }
        Ok(())
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_projection_in_sql_runs_inline_too() {
    let database = TestDatabase::create().await;
    let client = database.client().await;
    let create = "create table counts (number bigint primary key, position bigint not null)";
    client.batch_execute(create).await.unwrap();
    let plain = database.store().await;
    add(&plain, "before", 1).await;
    unrelated(&plain, "before").await;
    let counts = Counts { categories: vec!["ledger".to_owned()] };
    let store = plain.with_inline_sql(counts).await.unwrap();
    let (seed, _) = seeded();
    Load::start(&store, seed, 6, 15).done().await;
    let found = client.query("select position from counts order by number", &[]).await.unwrap();
    let found: Vec<i64> = found.iter().map(|row| row.get(0)).collect();
    let log = log(&store).await;
    let expected = log.iter().filter(|event| event.stream.category() == "ledger");
    assert_eq!(found, expected.map(|event| event.position.get()).collect::<Vec<_>>());
    let others = Counts { categories: vec!["audit".to_owned()] };
    let other = database.store().await.with_inline_sql(others).await;
    assert!(matches!(other, Err(ProjectionError::OtherCategories { .. })));
}
