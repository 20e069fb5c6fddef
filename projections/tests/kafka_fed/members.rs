//! Workers that come and go.

use std::time::Duration;

use rand::Rng;
use rdkafka::{
    ClientConfig, Offset, TopicPartitionList,
    consumer::{BaseConsumer, Consumer},
};
use tokio_postgres::Client;

use crate::{
    relay::{PARTITIONS, Relay},
    support::{
        Running,
        account::{Balance, move_some},
        database::{TestDatabase, kill, value},
        eventually, lease,
        load::{Load, seeded},
        oracle::assert_exact,
    },
};

#[tokio::test(flavor = "multi_thread")]
async fn equal_to_the_fold_while_workers_come_and_go() {
    let database = TestDatabase::create().await;
    let (store, client) = (database.store().await, database.client().await);
    let relay = Relay::start(&store).await;
    let reader = database.store_as("victim").await;
    let (seed, mut rng) = seeded();
    let mut load = Load::of_accounts(&store, seed, 300);
    let mut workers: Vec<Running> = Vec::new();
    let mut turns = 0;
    // A group moves slowly: most are gone before they have a slice.
    let taken = "select coalesce(sum(epoch), 0)::bigint from annals.checkpoints
                 where starts_with(name, 'projection:balances')";
    while turns < 40 || !load.is_done() || value::<i64>(&client, taken).await <= 8 {
        turns += 1;
        match rng.random_range(0..6) {
            0..3 if workers.len() < 3 => {
                let (batch_size, ttl) = (rng.random_range(1..20), rng.random_range(200..900));
                let worker = relay.worker::<Balance>(&reader);
                workers.push(Running::start(worker.batch_size(batch_size).lease(lease(ttl))));
            }
            3 if !workers.is_empty() => {
                let worker = workers.swap_remove(rng.random_range(0..workers.len()));
                assert!(worker.is_running(), "it ended: {:?}", worker.failure().await);
                worker.abort().await;
            }
            4 if !workers.is_empty() => {
                workers.swap_remove(rng.random_range(0..workers.len())).stop().await;
            }
            5 => drop(kill(&client, "victim").await),
            _ => {}
        }
        tokio::time::sleep(Duration::from_millis(rng.random_range(0..250))).await;
    }
    load.done().await;
    for worker in workers {
        assert!(worker.is_running(), "it ended: {:?}", worker.failure().await);
        worker.stop().await;
    }
    let mut last = Running::start(relay.worker::<Balance>(&store));
    last.caught_up::<Balance>(&store).await;
    last.stop().await;
    assert_exact::<Balance>(&store, &client).await;
}

/// The epochs of the slices' leases that hold, in the slices' order.
async fn epochs(client: &Client) -> Vec<i64> {
    let sql = "select coalesce(array_agg(epoch order by name), '{}') from annals.leases
               where starts_with(name, 'projection:balances/') and expires_at > now()";
    value(client, sql).await
}

/// What the group's offsets come to, as Kafka's tools see them.
fn committed(relay: &Relay) -> i64 {
    let consumer: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", &relay.brokers)
        .set("group.id", format!("{}.balances", relay.context))
        .create()
        .unwrap();
    let mut all = TopicPartitionList::new();
    for partition in 0..i32::from(PARTITIONS) {
        all.add_partition(&relay.topic("account"), partition);
    }
    let found = consumer.committed_offsets(all, Duration::from_secs(20)).unwrap();
    let offset = |offset| if let Offset::Offset(offset) = offset { offset } else { 0 };
    found.elements().iter().map(|element| offset(element.offset())).sum()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_group_shares_slices_out_and_moves_no_more_than_it_has_to() {
    let database = TestDatabase::create().await;
    let (store, client) = (database.store().await, database.client().await);
    let relay = Relay::start(&store).await;
    let (seed, mut rng) = seeded();
    Load::of_accounts(&store, seed, 30).done().await;
    relay.published().await;
    let start = || Running::start(relay.worker::<Balance>(&store).lease(lease(20_000)));
    let mut first = start();
    eventually("one has all", || async { epochs(&client).await.len() == 4 }).await;
    let sum = |epochs: Vec<i64>| epochs.iter().sum::<i64>();
    let before = sum(epochs(&client).await);
    let second = start();
    let two_moved = || async {
        let epochs = epochs(&client).await;
        epochs.len() == 4 && sum(epochs) == before + 2
    };
    eventually("two have two each", two_moved).await;
    // Nobody takes more, or takes turns.
    for _ in 0..40 {
        move_some(&store, &mut rng).await;
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert!(two_moved().await, "{:?}", epochs(&client).await);
    first.caught_up::<Balance>(&store).await;
    let leases = "select count(*) from annals.leases where starts_with(name, 'worker:')
                  and expires_at > now()";
    assert_eq!(value::<i64>(&client, leases).await, 0, "leases share nothing out");
    eventually("Kafka knows how far the group is", || async { committed(&relay) > 40 }).await;
    // One that leaves hands its slices over.
    second.stop().await;
    eventually("the first has all again", || async {
        let epochs = epochs(&client).await;
        epochs.len() == 4 && sum(epochs) == before + 4
    })
    .await;
    move_some(&store, &mut rng).await;
    first.caught_up::<Balance>(&store).await;
    first.stop().await;
    assert_exact::<Balance>(&store, &client).await;
}
