//! A rebuild that ends anywhere is gone on with, and one that was paused changes nothing.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use annals_projections::{ProjectionError, ReadModel, Rebuild};
use rand::Rng;
use tokio_postgres::Client;

use super::{Own, Pair, append_many, rebuild};
use crate::support::{
    catch_up,
    database::{TestDatabase, kill, value},
    eventually, in_time, lease,
    ledger::Tally,
    load::seeded,
    oracle::assert_exact,
};

/// Polls a future so often, and then drops it. `None` if it is not done by then.
async fn polled<T>(future: impl Future<Output = T>, mut steps: u32) -> Option<T> {
    let mut future = std::pin::pin!(future);
    std::future::poll_fn(|cx| match future.as_mut().poll(cx) {
        std::task::Poll::Ready(done) => std::task::Poll::Ready(Some(done)),
        std::task::Poll::Pending if steps == 0 => std::task::Poll::Ready(None),
        std::task::Poll::Pending => {
            steps -= 1;
            std::task::Poll::Pending
        }
    })
    .await
}

/// Each of these ends within a second after it is dropped.
fn short<R: ReadModel>(store: &annals_eventstore::EventStore) -> Rebuild<R> {
    Rebuild::of(store).lease(lease(100)).shards(2).rows_in_memory(40)
}

/// Begins a slow rebuild and drops it once a part of it is built. Its lease is over then.
async fn begin(client: &Client, slow: Rebuild<Tally>) {
    let building = tokio::spawn(async move { slow.lease(lease(60_000)).shards(2).build().await });
    let begun = "select coalesce(max(position), 0) from annals.checkpoints where starts_with(name, 'rebuild:tallies')";
    eventually("something is built", async || value::<i64>(client, begun).await > 0).await;
    assert!(!building.is_finished(), "it is too fast");
    building.abort();
    assert!(building.await.is_err_and(|error| error.is_cancelled()), "it was built meanwhile");
    let over = "update annals.leases set expires_at = '-infinity' where name = 'rebuild:tallies'";
    client.batch_execute(over).await.unwrap();
}

async fn again<T>(work: impl AsyncFn() -> Result<T, ProjectionError>) -> T {
    loop {
        match work().await {
            Ok(done) => return done,
            Err(error) => assert!(
                error.is_retryable() || error.to_string().contains("taken over"),
                "{error:?}"
            ),
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn dropped_after_every_number_of_steps() {
    let database = TestDatabase::create().await;
    let (store, client) = (database.store().await, database.client().await);
    let (_, mut rng) = seeded();
    append_many(&store, &mut rng, 60).await;
    catch_up::<Tally>(&store).await;
    let mut done = 0;
    for steps in 0..60 {
        append_many(&store, &mut rng, 1).await;
        // Its lease ends by itself.
        tokio::time::sleep(Duration::from_millis(110)).await;
        done += u32::from(polled(short::<Tally>(&store).run(), steps * 2).await.is_some());
        if steps % 10 == 9 {
            again(async || rebuild::<Tally>(&store).run().await).await;
            assert_exact::<Tally>(&store, &client).await;
        }
    }
    assert!(done < 60, "the test tests nothing");
    again(async || rebuild::<Tally>(&store).run().await).await;
    catch_up::<Tally>(&store).await;
    assert_exact::<Tally>(&store, &client).await;
}

/// With everything that can be called, in any order.
#[tokio::test(flavor = "multi_thread")]
async fn dropped_at_random_moments_in_any_order() {
    let database = TestDatabase::create().await;
    let (store, client) = (database.store().await, database.client().await);
    let (_, mut rng) = seeded();
    append_many(&store, &mut rng, 60).await;
    catch_up::<Own>(&store).await;
    for _ in 0..40 {
        append_many(&store, &mut rng, 1).await;
        let time = Duration::from_micros(rng.random_range(0..120_000));
        let rebuild = short::<Own>(&store);
        let outcome = match rng.random_range(0..8) {
            0..3 => tokio::time::timeout(time, rebuild.build()).await.map(|done| done.map(drop)),
            3..6 => tokio::time::timeout(time, rebuild.swap()).await,
            6 => tokio::time::timeout(time, rebuild.rollback()).await,
            _ => tokio::time::timeout(time, rebuild.discard()).await,
        };
        if let Ok(Err(error)) = outcome {
            let is_refused = matches!(
                error,
                ProjectionError::RebuildRuns { .. } | ProjectionError::NotRebuilt { .. }
            );
            assert!(is_refused || error.is_retryable(), "{error:?}");
        }
        catch_up::<Own>(&store).await;
        assert_exact::<Own>(&store, &client).await;
    }
    again(async || rebuild::<Own>(&store).run().await).await;
    assert_exact::<Own>(&store, &client).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn its_connections_are_terminated_again_and_again() {
    let database = TestDatabase::create().await;
    let (store, client) = (database.store().await, database.client().await);
    let victim = database.store_as("victim").await;
    let (_, mut rng) = seeded();
    append_many(&store, &mut rng, 120).await;
    catch_up::<Tally>(&store).await;
    let (mut done, mut killed, mut failed) = (0, 0, 0);
    while done < 5 || failed == 0 || killed <= 10 {
        let running = {
            let victim = victim.clone();
            tokio::spawn(async move { short::<Tally>(&victim).run().await })
        };
        // Some are let be.
        for _ in 0..rng.random_range(0..4) {
            tokio::time::sleep(Duration::from_millis(rng.random_range(1..60))).await;
            killed += kill(&client, "victim").await;
        }
        match running.await.unwrap() {
            Ok(_) => done += 1,
            Err(_) => failed += 1,
        }
        append_many(&store, &mut rng, 2).await;
        catch_up::<Tally>(&store).await;
        assert_exact::<Tally>(&store, &client).await;
        tokio::time::sleep(Duration::from_millis(110)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_finished_is_not_swapped_in() {
    let database = TestDatabase::create().await;
    let (store, client) = (database.store().await, database.client().await);
    let (_, mut rng) = seeded();
    append_many(&store, &mut rng, 100).await;
    catch_up::<Tally>(&store).await;
    begin(&client, Rebuild::<Tally>::of(&store).rows_in_memory(40).events_per_second(300)).await;
    for refused in [rebuild::<Tally>(&store).swap().await, {
        rebuild::<Tally>(&store).compare().await.map(drop)
    }] {
        assert!(matches!(refused, Err(ProjectionError::NotRebuilt { .. })), "{refused:?}");
    }
    let built = rebuild::<Tally>(&store).build().await.unwrap();
    assert!(built.events < built.position.get().cast_unsigned(), "it began anew");
    assert!(rebuild::<Tally>(&store).compare().await.unwrap().is_same());
    rebuild::<Tally>(&store).swap().await.unwrap();
    assert_exact::<Tally>(&store, &client).await;
}

/// The history that was copied beyond the checkpoint is not there twice.
#[tokio::test(flavor = "multi_thread")]
async fn it_goes_on_where_it_was_and_does_not_begin_anew() {
    let database = TestDatabase::create().await;
    let (store, client) = (database.store().await, database.client().await);
    let (_, mut rng) = seeded();
    append_many(&store, &mut rng, 600).await;
    let all = rebuild::<Pair>(&store).build().await.unwrap().events;
    begin(&client, Rebuild::<Tally>::of(&store).rows_in_memory(1).events_per_second(1000)).await;
    let built = rebuild::<Tally>(&store).build().await.unwrap();
    assert!(built.events < all, "{} of {all}", built.events);
    rebuild::<Tally>(&store).swap().await.unwrap();
    assert_exact::<Tally>(&store, &client).await;
}

/// One that is paused where it has created an index and not committed holds a lock that all that follows needs.
#[tokio::test(flavor = "multi_thread")]
async fn one_that_was_paused_while_it_indexed_holds_nobody_up() {
    let database = TestDatabase::create().await;
    let (store, client) = (database.store().await, database.client().await);
    let (_, mut rng) = seeded();
    append_many(&store, &mut rng, 100).await;
    rebuild::<Tally>(&store).build().await.unwrap();
    for table in ["tallies", "tallies_history"] {
        let paused = database.client().await;
        let index = format!("begin; create index on annals_rebuild.{table} ((1))");
        paused.batch_execute(&index).await.unwrap();
        in_time(async { rebuild::<Tally>(&store).discard().await.unwrap() }).await;
        rebuild::<Tally>(&store).build().await.unwrap();
        assert!(paused.batch_execute("commit").await.is_err(), "it was not ended");
    }
    rebuild::<Tally>(&store).swap().await.unwrap();
    assert_exact::<Tally>(&store, &client).await;
}

/// A rebuild that is held up in the middle, by its caller, until another took over.
#[tokio::test(flavor = "multi_thread")]
async fn one_that_was_paused_past_its_lease_changes_nothing() {
    let database = TestDatabase::create().await;
    let (store, client) = (database.store().await, database.client().await);
    let (_, mut rng) = seeded();
    append_many(&store, &mut rng, 100).await;
    catch_up::<Tally>(&store).await;
    for steps in (0..90).step_by(9) {
        // Nobody polls it for a while; what it has started goes on. Its lease is another's meanwhile.
        let zombie = short::<Tally>(&store);
        let mut zombie = Box::pin(zombie.run());
        let ended = AtomicBool::new(false);
        let mut left = steps;
        std::future::poll_fn(|cx| {
            if zombie.as_mut().poll(cx).is_ready() {
                ended.store(true, Ordering::Relaxed);
                return std::task::Poll::Ready(());
            }
            left -= 1;
            if left < 0 { std::task::Poll::Ready(()) } else { std::task::Poll::Pending }
        })
        .await;
        let lost = "update annals.leases set epoch = epoch + 1, owner = 'another', expires_at = '-infinity'
            where name = 'rebuild:tallies'";
        client.batch_execute(lost).await.unwrap();
        let again = || async { rebuild::<Tally>(&store).build().await.is_ok() };
        eventually("another takes over", again).await;
        if !ended.load(Ordering::Relaxed) {
            let late = zombie.await;
            assert!(late.is_err(), "after {steps} steps: {late:?}");
        }
        let comparison = rebuild::<Tally>(&store).compare().await.unwrap();
        assert!(comparison.is_same(), "{comparison:?}");
        rebuild::<Tally>(&store).swap().await.unwrap();
        assert_exact::<Tally>(&store, &client).await;
    }
}
