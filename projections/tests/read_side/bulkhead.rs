//! What hangs on the read side leaves commands alone.

use std::time::{Duration, Instant};

use annals_eventstore::{
    EventStore, Recorded,
    postgres::{Client as Sql, Use},
};
use annals_projections::{Cause, Rebuild, SqlProjection, Worker, async_trait};
use tokio_postgres::Client;

use crate::support::{
    Running, catch_up,
    database::{TestDatabase, patient, value},
    eventually, in_time,
    ledger::{Add, Tally},
};

/// Waits for a lock that the test has.
struct Hanging {
    categories: Vec<String>,
}

const LOCK: i64 = 4711;

#[async_trait]
impl SqlProjection for Hanging {
    fn name(&self) -> &str {
        "hanging"
    }

    fn categories(&self) -> &[String] {
        &self.categories
    }

    async fn install(&self, _: &Sql) -> Result<(), Cause> {
        Ok(())
    }

    async fn reset(&self, _: &Sql) -> Result<(), Cause> {
        Ok(())
    }

    async fn apply(&self, _: &[Recorded], sql: &Sql) -> Result<(), Cause> {
        sql.execute("select pg_advisory_xact_lock($1)", &[&LOCK]).await?;
        Ok(())
    }
}

/// Commands one after the other, each on a stream that has to be loaded; how long each took.
async fn commands(store: &EventStore, round: usize) -> Vec<Duration> {
    let mut times = Vec::new();
    for number in 0..150 {
        let started = Instant::now();
        let add = Add { ledger: format!("{round} {}", number % 50), amount: 1 };
        store.execute(add).await.unwrap();
        times.push(started.elapsed());
    }
    times
}

fn p99(times: &mut [Duration]) -> Duration {
    times.sort_unstable();
    times[times.len() * 99 / 100]
}

/// Holds the tables that a rebuild fills, once they are there.
async fn hold_tables(holder: &Client, client: &Client) {
    let sql = "select string_agg(format('%I.%I', schemaname, tablename), ', ') from pg_tables
               where tablename like 'tallies%' and schemaname <> 'public'";
    eventually("there are tables to be filled", || async {
        value::<Option<String>>(client, sql).await.is_some()
    })
    .await;
    let tables: String = value(client, sql).await;
    let lock = format!("lock table {tables} in access exclusive mode");
    holder.batch_execute(&lock).await.unwrap();
}

/// How many backends of this database wait for a lock.
async fn waiting(client: &Client) -> i64 {
    let sql = "select count(*) from pg_stat_activity
               where datname = current_database() and wait_event_type = 'Lock'";
    value(client, sql).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rebuild_and_a_projection_that_hang_leave_commands_alone() {
    in_time(async {
        let database = TestDatabase::create().await;
        // So few that one that is missing is missed, and no state that is known from before.
        let options = patient(EventStore::options()).cache_bytes(0).connections(Use::Read, 1);
        let store = database.store_with(options).await;
        let (holder, client) = (database.client().await, database.client().await);
        commands(&store, 0).await;
        catch_up::<Tally>(&store).await;
        let (mut without, mut with) = (Vec::new(), Vec::new());
        for round in 1..=3 {
            without.push(p99(&mut commands(&store, round).await));

            let begin = format!("begin; select pg_advisory_xact_lock({LOCK})");
            holder.batch_execute(&begin).await.unwrap();
            let categories = vec!["ledger".to_owned()];
            let worker = Worker::new(&store).sql(Hanging { categories });
            let hanging = Running::start(worker.poll_interval(Duration::from_millis(20)));
            // Slowly, so that its tables can be held before they are full.
            let rebuild = Rebuild::<Tally>::of(&store).events_per_second(150);
            let building = tokio::spawn(async move { rebuild.build().await });
            hold_tables(&holder, &client).await;
            eventually("both hang", || async { waiting(&client).await >= 2 }).await;
            with.push(p99(&mut commands(&store, round).await));
            assert!(waiting(&client).await >= 2, "they hang to the end");
            assert!(hanging.is_running() && !building.is_finished());
            holder.batch_execute("rollback").await.unwrap();
            building.await.unwrap().unwrap();
            hanging.stop().await;
            Rebuild::<Tally>::of(&store).discard().await.unwrap();
        }
        println!("p99 of commands: {without:?} without, {with:?} beside what hangs");
        // Machines that are busy have slow moments. What waits for a connection that hangs waits for good, each time.
        let (without, with) = (*without.iter().max().unwrap(), *with.iter().min().unwrap());
        let bound = 3 * without.max(Duration::from_millis(50));
        assert!(with <= bound, "{with:?} beside what hangs, {without:?} without");
    })
    .await;
}
