//! One worker at a time, by lease; and a checkpoint that only its last holder moves.

use annals_eventstore::{
    Error as StoreError, Position,
    postgres::{Checkpoint, Lease},
};
use tokio_postgres::Client;

use crate::support::{
    Running,
    database::{TestDatabase, value},
    eventually, lease,
    ledger::{Tally, add},
    load::{Load, seeded},
    oracle::assert_exact,
    stopping, worker,
};

async fn epoch(client: &Client) -> i64 {
    value(client, "select coalesce(max(epoch), 0) from annals.leases").await
}

#[tokio::test(flavor = "multi_thread")]
async fn one_of_two_workers_works_and_the_other_takes_over_when_it_dies() {
    let database = TestDatabase::create().await;
    let (store, client) = (database.store().await, database.client().await);
    let (seed, _) = seeded();
    let options = lease(6000);
    let mut first = Running::start(worker::<Tally>(&store).batch_size(3).lease(options));
    add(&store, "a", 1).await;
    first.caught_up::<Tally>(&store).await;
    let mut second = Running::start(worker::<Tally>(&store).batch_size(3).lease(options));
    // Longer than a lease lasts, which the first therefore renews.
    let ends: String = value(&client, "select expires_at::text from annals.leases").await;
    let is_over = format!("select clock_timestamp() > '{ends}'");
    for round in 0.. {
        Load::start(&store, seed + round, 2, 10).done().await;
        if value(&client, &is_over).await {
            break;
        }
    }
    first.caught_up::<Tally>(&store).await;
    assert!(second.is_running() && first.is_running());
    assert_eq!(epoch(&client).await, 1, "the second took the lease from the first, which lives");

    first.abort().await;
    add(&store, "a", 1).await;
    second.caught_up::<Tally>(&store).await;
    assert_eq!(epoch(&client).await, 2);
    second.stop().await;
    assert_exact::<Tally>(&store, &client).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lease_that_is_given_back_is_free_at_once() {
    let database = TestDatabase::create().await;
    let (store, client) = (database.store().await, database.client().await);
    // So long that nobody here sees it end.
    let options = lease(3_600_000);
    for round in 1..=3 {
        let mut running = Running::start(worker::<Tally>(&store).lease(options));
        add(&store, "a", 1).await;
        running.caught_up::<Tally>(&store).await;
        running.stop().await;
        assert_eq!(epoch(&client).await, round);
    }
    assert_exact::<Tally>(&store, &client).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_fails_gives_its_lease_back_too() {
    let database = TestDatabase::create().await;
    let (store, client) = (database.store().await, database.client().await);
    let mut running = Running::start(stopping::<Tally>(&store).lease(lease(3_600_000)));
    add(&store, "a", 1).await;
    running.caught_up::<Tally>(&store).await;
    client.batch_execute("alter table tallies add constraint no check (total < 2)").await.unwrap();
    add(&store, "a", 1).await;
    running.failure().await;
    client.batch_execute("alter table tallies drop constraint no").await.unwrap();
    crate::support::catch_up::<Tally>(&store).await;
    assert_exact::<Tally>(&store, &client).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn many_workers_on_one_read_model_apply_each_event_once() {
    let database = TestDatabase::create().await;
    let (store, client) = (database.store().await, database.client().await);
    let (seed, _) = seeded();
    // Leases so short that they often end under their holders.
    let mut workers: Vec<_> = (1..5)
        .map(|n| Running::start(worker::<Tally>(&store).batch_size(n).lease(lease(n as u64 * 3))))
        .collect();
    Load::start(&store, seed, 3, 250).done().await;
    workers[0].caught_up::<Tally>(&store).await;
    assert!(epoch(&client).await > 2, "the lease never changed hands");
    for worker in workers {
        worker.stop().await;
    }
    assert_exact::<Tally>(&store, &client).await;
}

#[tokio::test]
async fn an_earlier_epoch_moves_no_checkpoint_even_from_where_it_stands() {
    let database = TestDatabase::create().await;
    let store = database.store().await;
    let database = store.database().unwrap();
    let name = "projection:tallies";
    let mut earlier = Checkpoint::take_over(database, name, 4).await.unwrap();
    let mut client = database.client().await.unwrap();
    let transaction = client.transaction().await.unwrap();
    earlier.advance(&transaction, Position::new(10)).await.unwrap();
    transaction.commit().await.unwrap();
    earlier.moved(Position::new(10));

    let later = Checkpoint::take_over(database, name, 5).await.unwrap();
    assert_eq!(later.position(), Position::new(10));
    let transaction = client.transaction().await.unwrap();
    let refused = earlier.advance(&transaction, Position::new(20)).await;
    assert!(matches!(refused, Err(StoreError::Fenced { .. })), "{refused:?}");
    later.advance(&transaction, Position::new(12)).await.unwrap();
    // Nor does one move it from where it no longer stands.
    let refused = later.advance(&transaction, Position::new(30)).await;
    assert!(matches!(refused, Err(StoreError::Fenced { .. })), "{refused:?}");
    transaction.commit().await.unwrap();
    let late = Checkpoint::take_over(database, name, 4).await;
    assert!(matches!(late, Err(StoreError::Fenced { .. })), "{late:?}");
    let stands = Checkpoint::position_of(database, name).await.unwrap();
    assert_eq!(stands, Some(Position::new(12)));
}

#[tokio::test]
async fn a_lease_has_one_holder_and_each_holder_its_epoch() {
    let database = TestDatabase::create().await;
    let store = database.store().await;
    let database = store.database().unwrap();
    let acquire = |ttl| Lease::try_acquire(database, "work", lease(ttl));
    let first = acquire(3_600_000).await.unwrap().unwrap();
    assert!(acquire(3_600_000).await.unwrap().is_none());
    first.renew().await.unwrap();
    first.release().await.unwrap();
    let second = acquire(1).await.unwrap().unwrap();
    assert_eq!(second.epoch(), 2);
    tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    // It has ended, but nobody has taken it: its holder may go on.
    second.renew().await.unwrap();
    let mut third = None;
    while third.is_none() {
        third = acquire(3_600_000).await.unwrap();
    }
    let refused = second.renew().await;
    assert!(matches!(refused, Err(StoreError::Fenced { .. })), "{refused:?}");
    second.release().await.unwrap();
    assert!(acquire(1).await.unwrap().is_none(), "a former holder gives back what it has not");
    eventually("the third holder's renewal", || async {
        third.as_ref().unwrap().renew().await.is_ok()
    })
    .await;
}
