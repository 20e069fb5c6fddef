//! Units of work with SQL of the program's own, and what becomes of them when things go wrong.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::atomic::{AtomicBool, AtomicUsize, Ordering},
    time::Duration,
};

use annals_eventstore::{
    Append, Error, EventStore, ExecuteError, ExpectedVersion, Position, UnitOfWork,
};
use futures::future::join_all;
use tokio_postgres::Client;

use crate::support::{
    TestDatabase, assert_sound,
    counter::{Change, load},
    direct, events, eventually, in_time, kill, log, number, numbers, one, stream,
};

/// A database with a table of the program's own.
async fn with_table() -> (TestDatabase, Client) {
    let database = TestDatabase::create().await;
    let client = database.client().await;
    client.batch_execute("create table notes (number bigint primary key)").await.unwrap();
    (database, client)
}

async fn insert(unit: &UnitOfWork, number: i64) -> Result<u64, tokio_postgres::Error> {
    unit.sql().unwrap().execute("insert into notes values ($1)", &[&number]).await
}

async fn notes(client: &Client) -> Vec<i64> {
    let rows = client.query("select number from notes order by number", &[]).await.unwrap();
    rows.iter().map(|row| row.get(0)).collect()
}

/// Waits until no transaction is open on the store's connections.
async fn assert_none_open(client: &Client) {
    eventually("all transactions are ended", || async {
        let open = "select count(*) from pg_stat_activity
                    where application_name = 'annals' and datname = current_database()
                    and state <> 'idle'";
        client.query_one(open, &[]).await.unwrap().get::<_, i64>(0) == 0
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sql_and_events_are_committed_or_undone_together() {
    let (database, client) = with_table().await;
    let store = database.store().await;
    let mut unit = store.begin().await.unwrap();
    unit.execute(Change::new("a", [1])).await.unwrap();
    insert(&unit, 1).await.unwrap();
    assert!(notes(&client).await.is_empty());
    unit.commit().await.unwrap();
    assert_eq!((notes(&client).await, log(&store).await.len()), (vec![1], 1));

    let mut unit = store.begin().await.unwrap();
    unit.execute(Change::new("a", [1])).await.unwrap();
    insert(&unit, 2).await.unwrap();
    unit.rollback().await.unwrap();
    let mut unit = store.begin().await.unwrap();
    unit.execute(Change::new("a", [1])).await.unwrap();
    insert(&unit, 3).await.unwrap();
    store.execute(Change::new("a", [5])).await.unwrap();
    assert!(matches!(unit.commit().await, Err(Error::Conflict { .. })));
    assert_eq!((notes(&client).await, log(&store).await.len()), (vec![1], 2));

    // SQL alone is a unit, too.
    let unit = store.begin().await.unwrap();
    insert(&unit, 4).await.unwrap();
    unit.commit().await.unwrap();
    assert_eq!(notes(&client).await, [1, 4]);
    assert_none_open(&client).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slow_unit_holds_no_reader_up() {
    let (database, client) = with_table().await;
    let store = database.store().await;
    let mut unit = store.begin().await.unwrap();
    unit.execute(Change::new("a", [1])).await.unwrap();
    unit.append(one(stream("b"), 1)).await.unwrap();
    insert(&unit, 1).await.unwrap();
    for number in 0..3 {
        let appended = store.append(one(stream("c"), number)).await.unwrap();
        assert_eq!(direct::registered(&client).await, 0);
        assert_eq!(store.safe_position().await.unwrap(), appended.last_position);
        // Nor does it hold up who appends to its streams.
        store.append(one(stream("b"), number)).await.unwrap();
    }
    assert_eq!(log(&store).await.len(), 6);
    let committed = unit.commit().await.unwrap();
    assert_eq!(committed.first_position, Position::new(7), "its positions are the last");
    assert_eq!(log(&store).await.len(), 8);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_unit_in_which_a_statement_failed_is_not_committed() {
    let (database, client) = with_table().await;
    let store = database.store().await;
    for with_events in [true, false] {
        let mut unit = store.begin().await.unwrap();
        insert(&unit, 1).await.unwrap();
        assert!(insert(&unit, 1).await.is_err());
        if with_events {
            unit.append(one(stream("a"), 1)).await.unwrap();
        }
        match unit.commit().await {
            Err(error @ Error::Database { .. }) => assert!(!error.is_retryable()),
            other => panic!("{other:?}"),
        }
    }
    // With a savepoint, it can be.
    let mut unit = store.begin().await.unwrap();
    insert(&unit, 2).await.unwrap();
    let sql = unit.sql().unwrap();
    sql.batch_execute("savepoint mine").await.unwrap();
    assert!(insert(&unit, 2).await.is_err());
    sql.batch_execute("rollback to savepoint mine").await.unwrap();
    unit.append(one(stream("a"), 2)).await.unwrap();
    unit.commit().await.unwrap();
    assert_eq!((notes(&client).await, numbers(&log(&store).await)), (vec![2], vec![2]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_fails_only_at_the_commit_leaves_nothing() {
    let (database, client) = with_table().await;
    client
        .batch_execute(
            "create table children (note bigint references notes deferrable initially deferred)",
        )
        .await
        .unwrap();
    let store = database.store().await;
    let mut unit = store.begin().await.unwrap();
    unit.sql().unwrap().execute("insert into children values (7)", &[]).await.unwrap();
    unit.append(one(stream("a"), 1)).await.unwrap();
    match unit.commit().await {
        Err(error @ Error::Database { .. }) => assert!(!error.is_retryable()),
        other => panic!("{other:?}"),
    }
    assert!(log(&store).await.is_empty());
    assert_eq!(direct::registered(&client).await, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_transaction_that_is_not_the_units_own_is_noticed() {
    let (database, client) = with_table().await;
    let store = database.store().await;
    for meddling in [
        "commit",
        "rollback",
        "rollback; begin",
        "rollback; begin isolation level serializable",
        "set transaction isolation level repeatable read",
    ] {
        let mut unit = store.begin().await.unwrap();
        unit.append(one(stream("a"), 1)).await.unwrap();
        unit.sql().unwrap().batch_execute(meddling).await.unwrap();
        let committed = unit.commit().await;
        assert!(matches!(committed, Err(Error::UnitEnded)), "{meddling}: {committed:?}");
    }
    assert!(log(&store).await.is_empty());
    assert_none_open(&client).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn units_that_lock_rows_in_opposite_orders_are_done_again() {
    let (database, client) = with_table().await;
    client.batch_execute("insert into notes values (1), (2)").await.unwrap();
    let store = database.store().await;
    let lock = "select from notes where number = $1 for update";
    let (meet, tries) = (tokio::sync::Barrier::new(2), AtomicUsize::new(0));
    let work = async |first: i64, second: i64| {
        let met = AtomicBool::new(false);
        store
            .transact(async |unit| {
                tries.fetch_add(1, Ordering::Relaxed);
                unit.sql()?.execute(lock, &[&first]).await?;
                if !met.swap(true, Ordering::Relaxed) {
                    meet.wait().await;
                }
                unit.sql()?.execute(lock, &[&second]).await?;
                unit.append(one(stream("a"), first)).await?;
                Ok::<_, Failed>(())
            })
            .await
    };
    let (one, other) = in_time(async { tokio::join!(work(1, 2), work(2, 1)) }).await;
    one.unwrap();
    other.unwrap();
    assert!(tries.load(Ordering::Relaxed) > 2, "the test tests nothing");
    assert_eq!(log(&store).await.len(), 2);
    // An error of the program's own is not.
    let tries = AtomicUsize::new(0);
    let twice = store.transact(async |unit| {
        tries.fetch_add(1, Ordering::Relaxed);
        insert(unit, 1).await?;
        Ok::<_, Failed>(())
    });
    assert!(matches!(twice.await, Err(Failed::Sql(_))));
    assert_eq!(tries.load(Ordering::Relaxed), 1);
}

/// As a program may declare it: both hide themselves behind their causes.
#[derive(Debug, thiserror::Error)]
enum Failed {
    #[error(transparent)]
    Store(#[from] Error),
    #[error(transparent)]
    Sql(#[from] tokio_postgres::Error),
}

/// Records a number in the table and in two streams.
async fn record(store: &EventStore, number: i64) -> Result<(), Error> {
    let mut unit = store.begin().await?;
    insert(&unit, number).await.map_err(|error| Error::Database {
        action: "insert",
        source: Box::new(error),
        retryable: true,
    })?;
    let append = Append::to(stream(number % 7), ExpectedVersion::Any, events([number]));
    unit.append(append.and(
        stream(format!("own {number}")),
        ExpectedVersion::Any,
        events([number]),
    ))
    .await?;
    match unit.execute(Change::new("all", [1])).await {
        Ok(_) => {}
        Err(ExecuteError::Failed(error)) => return Err(error),
        Err(other) => panic!("{other}"),
    }
    unit.commit().await.map(drop)
}

/// Checks that the numbers in the table are those in the log, each three times or not at all, and
/// returns them.
async fn assert_whole(store: &EventStore, client: &Client) -> BTreeSet<i64> {
    let log = log(store).await;
    assert_sound(&log);
    let mut found: BTreeMap<i64, usize> = BTreeMap::new();
    for event in log.iter().filter(|event| event.stream.category() == "thing") {
        *found.entry(number(event)).or_default() += 1;
    }
    assert!(found.values().all(|count| *count == 2), "half of a unit is there: {found:?}");
    let found: BTreeSet<i64> = found.into_keys().collect();
    assert_eq!(found, notes(client).await.into_iter().collect());
    let total = if found.is_empty() { 0 } else { load(store, "all").await.state.total };
    assert_eq!(total, found.len() as i64);
    found
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_unit_whose_future_is_dropped_is_recorded_as_a_whole_or_not_at_all() {
    let (database, client) = with_table().await;
    let store = database
        .store_with(EventStore::options().connections(annals_eventstore::postgres::Use::Unit, 3))
        .await;
    record(&store, 0).await.unwrap();
    // How long one takes, so that they are dropped all along their way.
    let started = std::time::Instant::now();
    record(&store, 1).await.unwrap();
    let mut whole = started.elapsed();
    let mut numbers = 2..;
    loop {
        for number in numbers.by_ref().take(120) {
            let after = whole.mul_f64(f64::from(number as i32 % 60) / 40.0);
            drop(tokio::time::timeout(after, record(&store, number)).await);
        }
        assert_none_open(&client).await;
        let found = assert_whole(&store, &client).await.len();
        println!("{found} of {} recorded", numbers.start);
        assert!(found < numbers.start as usize, "the test tests nothing");
        if found > 2 {
            break;
        }
        // It was slower than before, all the time.
        whole *= 2;
    }
    assert_eq!(direct::registered(&client).await, 0);
    // The connections are as good as new.
    for number in 1000..1010 {
        record(&store, number).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_unit_whose_backend_is_killed_at_a_step_is_not_recorded() {
    let (database, client) = with_table().await;
    let store = database.store().await;
    let killer = database.client_as("killer").await;
    for step in 0..4 {
        let attempt = async {
            let mut unit = store.begin().await?;
            if step == 0 {
                kill(&killer, "annals").await;
            }
            unit.execute(Change::new("a", [1])).await.map_err(|error| match error {
                ExecuteError::Failed(error) => error,
                other => panic!("{other}"),
            })?;
            if step == 1 {
                kill(&killer, "annals").await;
            }
            let inserted = insert(&unit, 1).await;
            if step == 2 {
                kill(&killer, "annals").await;
            }
            unit.append(one(stream("b"), 1)).await?;
            if step == 3 {
                kill(&killer, "annals").await;
            }
            assert_eq!(inserted.is_ok(), step > 1);
            unit.commit().await
        };
        let error = attempt.await.expect_err("its backend was killed");
        assert!(error.is_retryable() && !matches!(error, Error::Indeterminate { .. }), "{error:?}");
        assert!(notes(&client).await.is_empty());
        let again = database.store().await;
        assert!(log(&again).await.is_empty());
    }
    assert_eq!(direct::registered(&client).await, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn units_are_recorded_once_or_not_acknowledged_while_backends_are_killed() {
    let (database, client) = with_table().await;
    let store = database.store().await;
    let killer = database.client_as("killer").await;
    let stop = std::sync::Arc::new(AtomicBool::new(false));
    let stopped = stop.clone();
    let killing = tokio::spawn(async move {
        let mut killed = 0;
        // Now and then there is time for a unit, however slow the machine is.
        for pause in [60, 60, 60, 400].into_iter().cycle() {
            if stopped.load(Ordering::Relaxed) {
                break;
            }
            tokio::time::sleep(Duration::from_millis(pause)).await;
            killed += kill(&killer, "annals").await;
        }
        killed
    });
    let tasks = (0..6).map(|task| {
        let store = store.clone();
        tokio::spawn(async move {
            let mut outcomes = Vec::new();
            for round in 0..40 {
                let number = task * 1000 + round;
                outcomes.push((number, record(&store, number).await));
            }
            outcomes
        })
    });
    let outcomes = in_time(join_all(tasks)).await;
    stop.store(true, Ordering::Relaxed);
    let killed = killing.await.unwrap();
    let (mut acknowledged, mut unknown) = (0, 0);
    let store = database.store().await;
    let found = assert_whole(&store, &client).await;
    for (number, outcome) in outcomes.into_iter().flat_map(Result::unwrap) {
        match outcome {
            Ok(()) => {
                acknowledged += 1;
                assert!(found.contains(&number), "unit {number} was acknowledged");
            }
            Err(Error::Indeterminate { .. }) => unknown += 1,
            Err(error) => {
                let passes = error.is_retryable() || matches!(error, Error::Conflict { .. });
                assert!(passes, "{error:?}");
                assert!(!found.contains(&number), "unit {number} had surely no effect: {error:?}");
            }
        }
    }
    println!("{killed} backends killed, {acknowledged} units acknowledged, {unknown} unknown");
    assert!(killed > 0 && acknowledged > 0, "the test tests nothing");
    assert_eq!(direct::registered(&client).await, 0);
}
