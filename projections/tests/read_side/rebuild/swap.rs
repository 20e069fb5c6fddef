//! Swapping, rolling back, discarding.

use annals_eventstore::{EventStore, ExpectedVersion, StreamId};
use annals_projections::{Phase, ProjectionError, QueryReadModels};
use tokio_postgres::Client;

use super::{Own, append_many, rebuild};
use crate::support::{
    Running, catch_up,
    database::{TestDatabase, value},
    ledger::{Tally, add},
    load::{Load, seeded},
    oracle::assert_exact,
    worker,
};

async fn total(store: &EventStore, key: &str) -> Option<i64> {
    store.query::<Tally>().get(&key.to_owned()).await.unwrap().map(|row| row.total)
}

async fn tables(client: &Client) -> String {
    let sql = "select coalesce(string_agg(schemaname || '.' || tablename, ' ' order by 1), '')
        from (select * from pg_tables where tablename like 'tallies%' order by 1) t";
    value(client, sql).await
}

#[tokio::test(flavor = "multi_thread")]
async fn back_and_forth_and_discarded() {
    let database = TestDatabase::create().await;
    let (store, client) = (database.store().await, database.client().await);
    add(&store, "a", 1).await;
    catch_up::<Tally>(&store).await;
    // By this the old tables are known.
    client.batch_execute("update tallies set total = 100").await.unwrap();
    let rebuild = rebuild::<Tally>(&store);
    for nothing in [rebuild.swap().await, rebuild.rollback().await] {
        assert!(matches!(nothing, Err(ProjectionError::NotRebuilt { .. })), "{nothing:?}");
    }
    rebuild.discard().await.unwrap();
    rebuild.build().await.unwrap();
    assert_eq!(total(&store, "a").await, Some(100), "nothing has changed yet");
    add(&store, "a", 1).await;
    rebuild.swap().await.unwrap();
    assert_eq!(total(&store, "a").await, Some(2), "and what came meanwhile is in");
    assert_exact::<Tally>(&store, &client).await;
    add(&store, "a", 1).await;
    catch_up::<Tally>(&store).await;
    assert_eq!(total(&store, "a").await, Some(3));

    rebuild.rollback().await.unwrap();
    assert_eq!(total(&store, "a").await, Some(100), "as it was");
    catch_up::<Tally>(&store).await;
    assert_eq!(total(&store, "a").await, Some(102), "and brought up to date");
    rebuild.rollback().await.unwrap();
    assert_eq!(total(&store, "a").await, Some(3));
    add(&store, "a", 1).await;
    catch_up::<Tally>(&store).await;
    assert_exact::<Tally>(&store, &client).await;
    assert_eq!(
        tables(&client).await,
        "annals_replaced.tallies annals_replaced.tallies_history public.tallies public.tallies_history"
    );

    rebuild.build().await.unwrap();
    rebuild.discard().await.unwrap();
    assert_eq!(tables(&client).await, "public.tallies public.tallies_history");
    for nothing in [rebuild.swap().await, rebuild.rollback().await] {
        assert!(matches!(nothing, Err(ProjectionError::NotRebuilt { .. })), "{nothing:?}");
    }
    let left = "select (select count(*) from annals.checkpoints) * 100
        + (select count(*) from annals.projections) * 10
        + (select count(*) from annals.replaced_projections)";
    assert_eq!(value::<i64>(&client, left).await, 110);
    catch_up::<Tally>(&store).await;
    assert_exact::<Tally>(&store, &client).await;
}

/// What a rollback finds waiting makes room.
#[tokio::test(flavor = "multi_thread")]
async fn a_rollback_beside_a_build_that_waits() {
    let database = TestDatabase::create().await;
    let (store, client) = (database.store().await, database.client().await);
    add(&store, "a", 1).await;
    catch_up::<Own>(&store).await;
    let rebuild = rebuild::<Own>(&store);
    rebuild.run().await.unwrap();
    add(&store, "a", 1).await;
    catch_up::<Own>(&store).await;
    rebuild.build().await.unwrap();
    rebuild.rollback().await.unwrap();
    let positions = "select count(*) from annals.checkpoints where position = 1";
    assert_eq!(value::<i64>(&client, positions).await, 4, "each slice is where it was");
    let nothing = rebuild.swap().await;
    assert!(matches!(nothing, Err(ProjectionError::NotRebuilt { .. })), "{nothing:?}");
    catch_up::<Own>(&store).await;
    assert_exact::<Own>(&store, &client).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rollback_that_would_miss_what_was_archived_is_refused() {
    let database = TestDatabase::create().await;
    let (store, client) = (database.store().await, database.client().await);
    add(&store, "a", 1).await;
    let rebuild = rebuild::<Tally>(&store);
    catch_up::<Tally>(&store).await;
    rebuild.run().await.unwrap();
    add(&store, "a", 1).await;
    catch_up::<Tally>(&store).await;
    let stream = StreamId::new("ledger", "a").unwrap();
    store.archive_stream(&stream, ExpectedVersion::Any).await.unwrap();
    let refused = rebuild.rollback().await.unwrap_err();
    assert!(refused.to_string().contains("archived"), "{refused}");
    assert_exact::<Tally>(&store, &client).await;
    store.restore_stream(&stream).await.unwrap();
    rebuild.rollback().await.unwrap();
    catch_up::<Tally>(&store).await;
    assert_exact::<Tally>(&store, &client).await;
}

/// Whatever is applied twice or left out by a worker that a swap overtakes shows in the trail.
#[tokio::test(flavor = "multi_thread")]
async fn workers_go_on_after_each_swap_and_rollback() {
    let database = TestDatabase::create().await;
    let (store, client) = (database.store().await, database.client().await);
    let (seed, mut rng) = seeded();
    append_many(&store, &mut rng, 40).await;
    let mut tallies = Running::start(worker::<Tally>(&store).batch_size(5));
    let mut owns: Vec<_> =
        (0..2).map(|_| Running::start(worker::<Own>(&store).batch_size(5))).collect();
    tallies.caught_up::<Tally>(&store).await;
    owns[0].caught_up::<Own>(&store).await;
    let mut load = Load::start(&store, seed, 3, 500);
    let mut rounds = 0;
    while rounds < 3 || !load.is_done() {
        rebuild::<Tally>(&store).run().await.unwrap();
        rebuild::<Own>(&store).run().await.unwrap();
        rebuild::<Own>(&store).rollback().await.unwrap();
        rebuild::<Tally>(&store).rollback().await.unwrap();
        rounds += 1;
    }
    load.done().await;
    tallies.caught_up::<Tally>(&store).await;
    owns[0].caught_up::<Own>(&store).await;
    assert_exact::<Tally>(&store, &client).await;
    assert_exact::<Own>(&store, &client).await;
    assert!(tallies.is_running());
    tallies.stop().await;
    for own in owns {
        own.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn it_waits_for_who_reads_the_table_and_lets_others_read_meanwhile() {
    let database = TestDatabase::create().await;
    let (store, client) = (database.store().await, database.client().await);
    add(&store, "a", 1).await;
    catch_up::<Tally>(&store).await;
    let rebuild = rebuild::<Tally>(&store);
    rebuild.build().await.unwrap();
    client.batch_execute("begin; select * from tallies").await.unwrap();
    let swapping = tokio::spawn(async move { rebuild.swap().await });
    let other = database.client().await;
    for _ in 0..20 {
        assert_eq!(value::<i64>(&other, "select count(*) from tallies").await, 1);
        tokio::time::sleep(std::time::Duration::from_millis(150)).await;
    }
    assert!(!swapping.is_finished());
    client.batch_execute("commit").await.unwrap();
    swapping.await.unwrap().unwrap();
    assert_exact::<Tally>(&store, &client).await;
}

#[test]
fn phases_have_names() {
    assert_eq!(format!("{:>10}|", Phase::Comparing), " comparing|");
}
