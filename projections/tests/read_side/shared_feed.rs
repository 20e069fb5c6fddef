//! All projections of a process share one feed.

use std::time::Duration;

use annals_eventstore::{Archived, EventStore, Position, Recorded};
use annals_projections::{Change, Project, QueryReadModels, ReadModel};
use tokio_postgres::Client;

use crate::support::{
    PATIENCE, Running, catch_up,
    database::{TestDatabase, kill_after, value},
    eventually,
    ledger::{Ledger, LedgerEvent, Tally, add, append},
    load::{Load, seeded},
    oracle::assert_exact,
    worker,
};

macro_rules! counts {
    ($($name:ident $table:literal),+) => {$(
        #[derive(ReadModel, Clone, Debug, PartialEq)]
        #[read_model(table = $table, from(Ledger))]
        struct $name {
            #[read_model(key)]
            ledger: String,
            events: i64,
            trail: i64,
        }

        impl Project<LedgerEvent> for $name {
            fn project(row: Option<Self>, event: &Recorded<LedgerEvent>) -> Change<Self> {
                let (events, trail) = row.map_or((0, 0), |row| (row.events, row.trail));
                let trail = trail.wrapping_mul(31).wrapping_add(event.position.get());
                let ledger = event.stream.key().to_owned();
                Change::Set(Self { ledger, events: events + 1, trail })
            }
        }
    )+};
}
counts!(
    Count1 "count_1", Count2 "count_2", Count3 "count_3", Count4 "count_4", Count5 "count_5",
    Count6 "count_6", Count7 "count_7", Count8 "count_8", Count9 "count_9"
);

fn ten(store: &EventStore) -> annals_projections::Worker {
    // Nudges alone lead to looks at the log.
    worker::<Tally>(store)
        .poll_interval(Duration::from_secs(3600))
        .projection::<Count1>()
        .projection::<Count2>()
        .projection::<Count3>()
        .projection::<Count4>()
        .projection::<Count5>()
        .projection::<Count6>()
        .projection::<Count7>()
        .projection::<Count8>()
        .projection::<Count9>()
}

async fn wait_for<R: ReadModel>(store: &EventStore) {
    let end = store.safe_position().await.unwrap();
    store.query::<R>().wait_for(end, PATIENCE / 2).await.unwrap();
}

async fn wait_for_ten(store: &EventStore) {
    wait_for::<Tally>(store).await;
    wait_for::<Count1>(store).await;
    wait_for::<Count2>(store).await;
    wait_for::<Count3>(store).await;
    wait_for::<Count4>(store).await;
    wait_for::<Count5>(store).await;
    wait_for::<Count6>(store).await;
    wait_for::<Count7>(store).await;
    wait_for::<Count8>(store).await;
    wait_for::<Count9>(store).await;
}

async fn connections(client: &Client, application: &str, statement: &str) -> i64 {
    let sql = "select count(*) from pg_stat_activity
               where datname = current_database() and application_name = $1 and query ilike $2";
    client.query_one(sql, &[&application, &statement]).await.unwrap().get(0)
}

#[tokio::test(flavor = "multi_thread")]
async fn ten_projections_listen_once_and_read_the_tail_once() {
    let database = TestDatabase::create().await;
    let (store, client) = (database.store().await, database.client().await);
    let reader = database.store_as("feeder").await;
    let running = Running::start(ten(&reader));
    add(&store, "a", 1).await;
    eventually("all tables are there", || async {
        value::<i64>(&client, "select count(*) from annals.leases where expires_at > now()").await
            == 10
    })
    .await;
    wait_for_ten(&store).await;
    let scans = "select coalesce(seq_scan, 0) + coalesce(idx_scan, 0) from pg_stat_user_tables
                 where schemaname = 'annals' and relname = 'events'";
    let appends = 60;
    for n in 0..appends {
        add(&store, &n.to_string(), n).await;
        wait_for_ten(&store).await;
    }
    assert_eq!(connections(&client, "feeder", "listen%").await, 1);
    running.stop().await;
    // Backends say what they did when they end.
    reader.close().await;
    drop(reader);
    eventually("its backends have ended", || async {
        connections(&client, "feeder", "%").await == 0
    })
    .await;
    let scans: i64 = value(&client, scans).await;
    // Each look at the log that finds something is one; to begin with, some may read for themselves.
    assert!(scans < 2 * appends + 40, "{scans} scans of the events for {appends} appends");
    assert_exact::<Tally>(&store, &client).await;
    assert_exact::<Count9>(&store, &client).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_that_is_far_behind_holds_up_no_other() {
    let database = TestDatabase::create().await;
    let (store, mut other) = (database.store().await, database.client().await);
    let client = database.client().await;
    for _ in 0..20 {
        let events = (0..600).map(|amount| LedgerEvent::Added { amount });
        append::<Ledger>(&store, "a", events).await;
    }
    catch_up::<Tally>(&store).await;
    catch_up::<Count1>(&store).await;
    // Count1 is to begin anew, and cannot write for a while.
    client.batch_execute("update annals.checkpoints set position = 0 where name like '%count_1'; delete from count_1").await.unwrap();
    let transaction = other.transaction().await.unwrap();
    transaction.batch_execute("lock table count_1 in access exclusive mode").await.unwrap();
    let mut running = Running::start(worker::<Tally>(&store).projection::<Count1>().batch_size(50));
    let (seed, _) = seeded();
    Load::start(&store, seed, 2, 50).done().await;
    running.caught_up::<Tally>(&store).await;
    transaction.rollback().await.unwrap();
    running.caught_up::<Count1>(&store).await;
    running.stop().await;
    assert_exact::<Tally>(&store, &client).await;
    assert_exact::<Count1>(&store, &client).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_connection_to_listen_on_the_log_is_polled() {
    let database = TestDatabase::create().await;
    let (store, client) = (database.store().await, database.client().await);
    let elsewhere = TestDatabase::create().await;
    let admin = elsewhere.client().await;
    let reader = database.store_as("victim").await;
    let mut running = Running::start(worker::<Tally>(&reader));
    add(&store, "a", 1).await;
    running.caught_up::<Tally>(&store).await;
    // Connections stay, and there are no new ones.
    let name = database.name();
    admin.batch_execute(&format!("alter database {name} allow_connections false")).await.unwrap();
    eventually("a listener", || async { kill_after(&client, "victim", "listen%").await > 0 }).await;
    for _ in 0..10 {
        add(&store, "a", 1).await;
        running.caught_up::<Tally>(&store).await;
    }
    assert_eq!(connections(&client, "victim", "listen%").await, 0);
    admin.batch_execute(&format!("alter database {name} allow_connections true")).await.unwrap();
    eventually("it listens again", || async {
        connections(&client, "victim", "listen%").await == 1
    })
    .await;
    running.stop().await;
    assert_exact::<Tally>(&store, &client).await;
}

/// An event of about this size.
fn large(bytes: usize) -> LedgerEvent {
    LedgerEvent::Shared { ledgers: vec!["x".repeat(bytes)], amount: 1 }
}

#[tokio::test(flavor = "multi_thread")]
async fn large_events_are_taken_a_few_at_a_time() {
    let database = TestDatabase::create().await;
    let (store, client) = (database.store().await, database.client().await);
    const LARGE: usize = 700_000;
    for n in 0..60 {
        append::<Ledger>(&store, &n.to_string(), [large(LARGE), LedgerEvent::Noted]).await;
    }
    let safe = store.safe_position().await.unwrap();
    let page = |after, limit, bytes| {
        store.read_page_within(Archived::Excluded, None, after, safe, limit, bytes)
    };
    // It ends with the event with which it is full.
    for (bytes, events) in [(0, 1), (1, 1), (LARGE, 1), (LARGE + 100, 3), (3 * LARGE, 5)] {
        let found = page(Position::START, 1000, bytes).await.unwrap();
        assert_eq!(found.len(), events, "{bytes} bytes");
    }
    assert_eq!(page(Position::START, 2, 3 * LARGE).await.unwrap().len(), 2);
    assert_eq!(page(Position::START, 1000, usize::MAX).await.unwrap().len(), 120);

    client.batch_execute("create table public.moves (position bigint)").await.unwrap();
    client
        .batch_execute(
            "create function moved() returns trigger language plpgsql as
             $$ begin insert into public.moves values (new.position); return new; end $$;
             create trigger moved after update of position on annals.checkpoints
             for each row execute function moved()",
        )
        .await
        .unwrap();
    catch_up::<Count1>(&store).await;
    assert_exact::<Count1>(&store, &client).await;
    let most: i64 = value(
        &client,
        "select max(position - before) from (
             select position, lag(position, 1, 0::bigint) over (order by position) as before
             from (select distinct position from moves) moves) steps",
    )
    .await;
    // 8 MiB in each batch.
    assert!(most <= 26, "{most} events in one batch");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_feed_ends_with_its_worker() {
    let database = TestDatabase::create().await;
    let client = database.client().await;
    let reader = database.store_as("feeder").await;
    let running = Running::start(worker::<Tally>(&reader));
    eventually("a listener", || async { connections(&client, "feeder", "listen%").await == 1 })
        .await;
    running.stop().await;
    eventually("none", || async { connections(&client, "feeder", "listen%").await == 0 }).await;
}
