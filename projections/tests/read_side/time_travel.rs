//! The past: any moment of it, from Rust and from SQL, again and again the same.

use annals_eventstore::{
    AsOf, Clock, Error as StoreError, EventStore, ManualClock, Position, Recorded,
};
use annals_projections::{Consistency, ProjectionError, QueryReadModels, ReadModel};
use chrono::{DateTime, TimeDelta, Utc};
use rand::Rng;
use tokio_postgres::{Client, types::ToSql};

use crate::support::{
    PATIENCE, Running, catch_up,
    database::{TestDatabase, refusal, value},
    eventually,
    ledger::{Ledger, LedgerEvent, Tally, add, append},
    load::{Load, append_some, seeded},
    oracle::{assert_exact, fold, log, sorted},
    worker,
};

async fn in_sql(client: &Client, argument: &str, params: &[&(dyn ToSql + Sync)]) -> Vec<String> {
    let sql = format!("select * from tallies_as_of({argument})");
    let rows = client.query(&sql, params).await.unwrap();
    sorted(rows.iter().map(|row| Tally::from_row(row).unwrap()))
}

async fn in_rust(store: &EventStore, as_of: AsOf) -> Vec<String> {
    sorted(store.query::<Tally>().as_of(as_of).all().await.unwrap())
}

fn expected(log: &[Recorded], at: Position) -> Vec<String> {
    sorted(fold::<Tally>(log, at).rows.into_values())
}

/// The position of the last event recorded at or before a time.
fn cut(log: &[Recorded], time: DateTime<Utc>) -> Position {
    let last = log.iter().take_while(|event| event.recorded_at <= time).last();
    last.map_or(Position::START, |event| event.position)
}

async fn assert_as_of(store: &EventStore, client: &Client, log: &[Recorded], at: Position) {
    let rows = expected(log, at);
    assert_eq!(in_rust(store, AsOf::Position(at)).await, rows, "as of position {at}, in Rust");
    assert_eq!(
        in_sql(client, "$1::bigint", &[&at.get()]).await,
        rows,
        "as of position {at}, in SQL"
    );
    let tallies = fold::<Tally>(log, at).rows;
    let key = "a".to_owned();
    let row = store.query::<Tally>().as_of(AsOf::Position(at)).get(&key).await.unwrap();
    assert_eq!(row.as_ref(), tallies.get(&key), "one row as of position {at}");
}

async fn assert_as_of_time(
    store: &EventStore,
    client: &Client,
    log: &[Recorded],
    time: DateTime<Utc>,
) {
    let rows = expected(log, cut(log, time));
    assert_eq!(in_rust(store, AsOf::Time(time)).await, rows, "as of {time}, in Rust");
    assert_eq!(in_sql(client, "$1::timestamptz", &[&time]).await, rows, "as of {time}, in SQL");
    let literal = format!("'{}'", time.to_rfc3339());
    assert_eq!(in_sql(client, &literal, &[]).await, rows, "as of {literal}, in SQL");
}

#[tokio::test(flavor = "multi_thread")]
async fn every_position_and_every_time_is_a_fold_of_the_log_up_to_there() {
    let (_, mut rng) = seeded();
    for round in 0..3 {
        let database = TestDatabase::create().await;
        let mut now: DateTime<Utc> = "2011-10-01T00:00:00Z".parse().unwrap();
        let clock = ManualClock::at(now);
        let options = EventStore::options().clock(Clock::supplied(clock.clone()));
        let (store, client) = (database.store_with(options).await, database.client().await);
        let mut asked = Vec::new();
        for n in 0..40 {
            // Some appends share their time with the one before.
            now += TimeDelta::microseconds([0, 1, 2, 86_400_000_000][rng.random_range(0..4)]);
            clock.set(now);
            append_some(&store, &mut rng).await;
            if n % 8 == 0 || n == 39 {
                let batch_size = rng.random_range(1..20);
                let mut running = Running::start(worker::<Tally>(&store).batch_size(batch_size));
                running.caught_up::<Tally>(&store).await;
                running.stop().await;
                let at = store.safe_position().await.unwrap();
                asked.push((at, in_rust(&store, AsOf::Position(at)).await));
            }
        }
        now += TimeDelta::days(1);
        clock.set(now);
        assert_exact::<Tally>(&store, &client).await;

        let log = log(&store).await;
        let end = store.safe_position().await.unwrap();
        for at in 0..=end.get() {
            assert_as_of(&store, &client, &log, Position::new(at)).await;
        }
        let mut times: Vec<_> = log
            .iter()
            .flat_map(|event| [-1, 0, 1].map(|d| event.recorded_at + TimeDelta::microseconds(d)))
            .filter(|time| *time < now)
            .collect();
        times.sort_unstable();
        times.dedup();
        let (first, span) = (times[0], (now - times[0]).num_microseconds().unwrap());
        let random = |_| first + TimeDelta::microseconds(rng.random_range(0..span));
        times.extend((0..30).map(random));
        for time in times {
            assert_as_of_time(&store, &client, &log, time).await;
        }
        for (at, rows) in asked {
            assert_eq!(in_rust(&store, AsOf::Position(at)).await, rows, "asked twice, at {at}");
        }
        println!("round {round}: {} events", log.len());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_stays_the_same_while_appends_go_on() {
    let database = TestDatabase::create().await;
    let (store, client) = (database.store().await, database.client().await);
    let (seed, mut rng) = seeded();
    let running = Running::start(worker::<Tally>(&store).batch_size(7));
    let mut load = Load::start(&store, seed, 4, 150);
    // The worker may have to come to that time first.
    let patient = Consistency::AtLeast(Position::START, PATIENCE / 2);
    let mut asked = Vec::new();
    // On a busy machine a load is over before much has been asked; then there is another.
    for round in 1.. {
        if load.is_done() && asked.len() > 10 {
            break;
        }
        if load.is_done() {
            std::mem::replace(&mut load, Load::start(&store, seed + round, 4, 150)).done().await;
        }
        let now: DateTime<Utc> = value(&client, "select clock_timestamp()").await;
        let time = now - TimeDelta::microseconds(rng.random_range(1..5000));
        let query = store.query::<Tally>().as_of(AsOf::Time(time)).consistency(patient);
        asked.push((time, sorted(query.all().await.unwrap())));
        let (time, rows) = &asked[rng.random_range(0..asked.len())];
        assert_eq!(in_rust(&store, AsOf::Time(*time)).await, *rows, "asked again: {time}");
    }
    let log = log(&store).await;
    for (time, rows) in asked {
        assert_eq!(rows, expected(&log, cut(&log, time)), "as of {time}");
        assert_eq!(in_sql(&client, "$1::timestamptz", &[&time]).await, rows, "as of {time}");
    }
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_future_is_refused() {
    let database = TestDatabase::create().await;
    let (store, client) = (database.store().await, database.client().await);
    add(&store, "a", 1).await;
    catch_up::<Tally>(&store).await;
    let query = store.query::<Tally>().as_of(AsOf::Time(Utc::now() + TimeDelta::hours(1)));
    let error = query.all().await.unwrap_err();
    assert!(
        matches!(error, ProjectionError::Store(StoreError::Future { .. })),
        "not refused as the future: {error:?}"
    );
    for future in ["now() + interval '1 hour'", "'infinity'", "'2999-12-31'", "date '2999-12-31'"] {
        let (code, message) =
            refusal(&client, &format!("select * from tallies_as_of({future})")).await;
        assert_eq!(code, "AN003", "{future}: {message}");
        assert!(message.contains("future"), "{message}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_supplied_clock_says_what_the_future_is() {
    let database = TestDatabase::create().await;
    let now: DateTime<Utc> = "2011-10-01T00:00:00Z".parse().unwrap();
    let clock = ManualClock::at(now);
    let options = EventStore::options().clock(Clock::supplied(clock.clone()));
    let store = database.store_with(options).await;
    add(&store, "a", 1).await;
    catch_up::<Tally>(&store).await;
    let later = AsOf::Time(now + TimeDelta::seconds(1));
    let error = store.query::<Tally>().as_of(later).all().await.unwrap_err();
    assert!(matches!(error, ProjectionError::Store(StoreError::Future { .. })), "{error:?}");
    clock.set(now + TimeDelta::seconds(2));
    assert_eq!(store.query::<Tally>().as_of(later).all().await.unwrap().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_moment_that_the_read_model_has_not_come_to_is_refused_or_waited_for() {
    let database = TestDatabase::create().await;
    let (store, client) = (database.store().await, database.client().await);
    let reached = add(&store, "a", 1).await.last_position;
    catch_up::<Tally>(&store).await;
    let needed = add(&store, "a", 1).await.last_position;
    let time: DateTime<Utc> = value(&client, "select clock_timestamp()").await;
    for as_of in [AsOf::Position(needed), AsOf::Time(time)] {
        let error = store.query::<Tally>().as_of(as_of).all().await.unwrap_err();
        assert!(error.is_retryable());
        match error {
            ProjectionError::NotReached { projection: "tallies", reached: r, needed: n } => {
                assert_eq!((r, n), (reached, needed));
            }
            other => panic!("{other:?}"),
        }
    }
    for moment in [needed.to_string(), format!("'{}'", time.to_rfc3339())] {
        let (code, message) =
            refusal(&client, &format!("select * from tallies_as_of({moment})")).await;
        assert_eq!(code, "AN004", "{moment}: {message}");
        assert!(message.contains("tallies has come to position 1"), "{message}");
    }

    let patient = Consistency::AtLeast(Position::START, PATIENCE / 2);
    let waiting = [AsOf::Position(needed), AsOf::Time(time)].map(|as_of| {
        let query = store.query::<Tally>().as_of(as_of).consistency(patient);
        async move { query.all().await.unwrap()[0].total }
    });
    let (_, totals) = tokio::join!(catch_up::<Tally>(&store), futures::future::join_all(waiting));
    assert_eq!(totals, [2, 2]);
}

#[tokio::test(flavor = "multi_thread")]
async fn moments_come_in_all_forms() {
    let database = TestDatabase::create().await;
    let (store, client) = (database.store().await, database.client().await);
    let nothing = |rows: Vec<String>| assert_eq!(rows, Vec::<String>::new());
    catch_up::<Tally>(&store).await;
    nothing(in_sql(&client, "0", &[]).await);
    nothing(in_sql(&client, "'2011-12-31'", &[]).await);
    nothing(in_rust(&store, AsOf::Position(Position::START)).await);

    let at = add(&store, "a", 1).await.last_position;
    catch_up::<Tally>(&store).await;
    for before in
        ["'2011-12-31'", "'-infinity'", "timestamp '2011-12-31'", "date '2011-12-31'", "0", "-1"]
    {
        nothing(in_sql(&client, before, &[]).await);
    }
    let now = in_rust(&store, AsOf::Position(at)).await;
    assert_eq!(now.len(), 1);
    for after in ["now()", "'now'", "current_timestamp", "clock_timestamp() - interval '1 us'", "1"]
    {
        assert_eq!(in_sql(&client, after, &[]).await, now, "{after}");
    }
    // No moment is no answer, and certainly not some other one.
    for null in ["null", "null::bigint", "null::timestamptz", "null::text"] {
        let (code, message) =
            refusal(&client, &format!("select * from tallies_as_of({null})")).await;
        assert_eq!(code, "22004", "{null}: {message}");
    }
    let (code, _) = refusal(&client, "select * from tallies_as_of('yesteryear')").await;
    assert_eq!(code, "22007");

    let version = AsOf::Version(annals_eventstore::Version::new(1));
    let error = store.query::<Tally>().as_of(version).all().await.unwrap_err();
    assert!(matches!(error, ProjectionError::NotAMoment), "{error:?}");
}

/// A transaction with one snapshot for all its statements does not see the appends that the answer
/// depends on.
#[tokio::test(flavor = "multi_thread")]
async fn a_time_is_refused_where_it_could_be_answered_wrongly() {
    let database = TestDatabase::create().await;
    let (store, client) = (database.store().await, database.client().await);
    let at = add(&store, "a", 1).await.last_position;
    catch_up::<Tally>(&store).await;
    for level in ["repeatable read", "serializable"] {
        client.batch_execute(&format!("begin isolation level {level}")).await.unwrap();
        assert_eq!(in_sql(&client, "$1::bigint", &[&at.get()]).await.len(), 1);
        let (code, message) = refusal(&client, "select * from tallies_as_of(now())").await;
        assert_eq!(code, "AN005", "{message}");
        client.batch_execute("rollback").await.unwrap();
    }
}

/// How many versions queries have read of the history so far, by the server's own count. It comes a little later,
/// for each statement at once.
async fn read_of_history(client: &Client) -> i64 {
    let read = "select seq_tup_read + coalesce(idx_tup_fetch, 0) from pg_stat_user_tables
        where schemaname = 'public' and relname = 'tallies_history'";
    value(client, read).await
}

#[tokio::test(flavor = "multi_thread")]
async fn an_old_moment_costs_by_the_rows_of_then_and_not_by_the_length_of_history() {
    const ROWS: i64 = 50;
    const VERSIONS: i64 = 1000;
    let database = TestDatabase::create().await;
    let (store, client) = (database.store().await, database.client().await);
    for _ in 0..2 {
        for row in 0..ROWS {
            add(&store, &row.to_string(), 1).await;
        }
    }
    let then = AsOf::Position(store.safe_position().await.unwrap());
    for row in 0..ROWS {
        let added = (0..VERSIONS).map(|amount| LedgerEvent::Added { amount });
        append::<Ledger>(&store, &row.to_string(), added).await;
    }
    catch_up::<Tally>(&store).await;
    // What this reads comes to the count at once.
    client.batch_execute("analyze tallies, tallies_history").await.unwrap();
    client.batch_execute("select pg_stat_force_next_flush()").await.unwrap();
    let before = read_of_history(&client).await;
    assert_eq!(in_rust(&store, then).await.len() as i64, ROWS);
    let read = || async { read_of_history(&client).await > before };
    eventually("the query is counted", read).await;
    let read = read_of_history(&client).await - before;
    assert!(read >= ROWS, "{read} versions for {ROWS} rows, which all have changed since");
    assert!(read <= 10 * ROWS, "{read} of {} versions for {ROWS} rows", ROWS * VERSIONS);
}
