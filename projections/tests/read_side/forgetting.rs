//! History that is forgotten: by workers when it is old, and beside queries that are about to read it.

use std::time::{Duration, Instant};

use annals_eventstore::{AsOf, EventStore, Position};
use annals_projections::{Consistency, ProjectionError, QueryCache, QueryReadModels, Worker};
use futures::TryStreamExt;

use crate::support::{
    PATIENCE, Running, catch_up,
    database::{TestDatabase, value},
    eventually, in_time,
    ledger::{Tally, add},
};

const AGE: Duration = Duration::from_secs(3);

#[tokio::test(flavor = "multi_thread")]
async fn workers_forget_what_is_old_enough_and_no_more() {
    let database = TestDatabase::create().await;
    let (store, client) = (database.store().await, database.client().await);
    for _ in 0..5 {
        add(&store, "a", 1).await;
    }
    let end = store.safe_position().await.unwrap();
    catch_up::<Tally>(&store).await;
    let kept = "select kept_from from annals.projections where name = 'projection:tallies'";
    assert_eq!(value::<i64>(&client, kept).await, 0);

    // Two of them, and it is done by one at a time.
    let worker = || Worker::new(&store).projection::<Tally>().keep_history(AGE);
    let running = [Running::start(worker()), Running::start(worker())];
    eventually("the five are old", async || value::<i64>(&client, kept).await == end.get()).await;
    let versions = "select count(*) from tallies_history";
    eventually("they are forgotten", async || value::<i64>(&client, versions).await == 0).await;
    let early = AsOf::Position(Position::new(end.get() - 1));
    let error = store.query::<Tally>().as_of(early).all().await.unwrap_err();
    assert!(matches!(error, ProjectionError::Forgotten { .. }), "{error:?}");
    // Where the machine stands still for so long, they are old, too.
    for total in (5..).step_by(2) {
        let (since, oldest) = (Instant::now(), store.safe_position().await.unwrap());
        add(&store, "a", 1).await;
        let last = add(&store, "a", 1).await.last_position;
        store.query::<Tally>().wait_for(last, PATIENCE).await.unwrap();
        tokio::time::sleep(AGE / 3).await;
        let found: i64 = value(&client, versions).await;
        let rows = store.query::<Tally>().as_of(AsOf::Position(oldest)).all().await;
        if since.elapsed() < AGE {
            assert!(found >= 2, "they are new");
            let totals: Vec<_> = rows.unwrap().iter().map(|row| row.total).collect();
            assert_eq!(totals, [total], "as of the oldest kept");
            break;
        }
    }
    for running in running {
        running.stop().await;
    }
}

/// Whatever a query asks for, of the moment.
type Ask = fn(EventStore, AsOf) -> futures::future::BoxFuture<'static, Result<(), ProjectionError>>;

const ASK: [(&str, Ask); 6] = [
    ("all", |store, then| {
        Box::pin(async move { store.query::<Tally>().as_of(then).all().await.map(drop) })
    }),
    ("rows", |store, then| {
        Box::pin(async move {
            let rows = store.query::<Tally>().as_of(then).rows().await?;
            rows.try_collect::<Vec<_>>().await.map(drop)
        })
    }),
    ("count", |store, then| {
        Box::pin(async move { store.query::<Tally>().as_of(then).count().await.map(drop) })
    }),
    ("get", |store, then| {
        Box::pin(async move {
            let fresh = Consistency::AtLeast(Position::new(1), Duration::from_secs(1));
            let query = store.query::<Tally>().consistency(fresh).as_of(then);
            query.get(&"a".to_owned()).await.map(drop)
        })
    }),
    ("changes", |store, then| {
        Box::pin(async move {
            let to = AsOf::Position(store.safe_position().await?);
            store.query::<Tally>().changes(then, to).await.map(drop)
        })
    }),
    ("cached", |store, then| {
        Box::pin(async move {
            let cache = QueryCache::new(&store)?;
            cache.query::<Tally>().as_of(then).all().await.map(drop)
        })
    }),
];

/// Runs something that reads the table, has it come to that, and changes what is there before it does.
async fn changed_before_it_reads<T: Send + 'static>(
    database: &TestDatabase,
    ask: impl Future<Output = T> + Send + 'static,
    change: &str,
) -> T {
    let (client, other) = (database.client().await, database.client().await);
    let lock = "begin; lock table tallies, tallies_history in access exclusive mode";
    client.batch_execute(lock).await.unwrap();
    let asking = tokio::spawn(ask);
    let waits = "select count(*) from pg_locks where not granted
                 and relation in ('tallies'::regclass, 'tallies_history'::regclass)";
    eventually("it has looked, and is to read", async || value::<i64>(&other, waits).await > 0)
        .await;
    client.batch_execute(&format!("{change}; commit")).await.unwrap();
    in_time(asking).await.unwrap()
}

fn forget(kept_from: i64) -> String {
    format!(
        "update annals.projections set kept_from = {kept_from};
         delete from tallies_history where valid_to <= {kept_from}"
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn a_query_that_history_is_forgotten_under_fails_and_does_not_answer_with_less() {
    let database = TestDatabase::create().await;
    let store = database.store().await;
    for _ in 0..80 {
        add(&store, "a", 1).await;
    }
    catch_up::<Tally>(&store).await;
    let mut answered = Vec::new();
    for (number, (what, ask)) in (1..).zip(ASK) {
        let then = AsOf::Position(Position::new(number * 10));
        ask(store.clone(), then).await.unwrap();
        let asking = ask(store.clone(), then);
        let answer = changed_before_it_reads(&database, asking, &forget(number * 10 + 5)).await;
        if !matches!(answer, Err(ProjectionError::Forgotten { .. })) {
            answered.push((what, answer));
        }
    }
    assert!(answered.is_empty(), "{answered:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn so_does_the_function_in_the_database() {
    let database = TestDatabase::create().await;
    let (store, client) = (database.store().await, database.client().await);
    for _ in 0..10 {
        add(&store, "a", 1).await;
    }
    catch_up::<Tally>(&store).await;
    let asking = async move {
        let asked = client.query("select * from tallies_as_of(4)", &[]).await;
        asked.map(|rows| rows.len())
    };
    let answer = changed_before_it_reads(&database, asking, &forget(7)).await;
    let code = answer.map_err(|error| error.code().map(|code| code.code().to_owned()));
    assert_eq!(code, Err(Some("AN013".to_owned())));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_query_that_the_read_model_is_rolled_back_under_waits_for_it_again() {
    let database = TestDatabase::create().await;
    let store = database.store().await;
    add(&store, "a", 1).await;
    catch_up::<Tally>(&store).await;
    let end = store.safe_position().await.unwrap();
    let asking = async move {
        let fresh = Consistency::AtLeast(end, Duration::from_millis(500));
        store.query::<Tally>().consistency(fresh).all().await.map(|rows| rows.len())
    };
    // What `rollback` comes to.
    let change = "update annals.checkpoints set position = 0; delete from tallies";
    let answer = changed_before_it_reads(&database, asking, change).await;
    assert!(matches!(answer, Err(ProjectionError::TimedOut { .. })), "{answer:?}");
}
