//! The read side behind a pooler, and beside those who take all connections.

use std::time::Duration;

use annals_eventstore::{EventStore, postgres::Use};

use crate::support::{
    Running,
    database::TestDatabase,
    in_time,
    ledger::Tally,
    load::{Load, seeded},
    oracle::assert_exact,
    pooler::Pooler,
    worker,
};

#[tokio::test(flavor = "multi_thread")]
async fn behind_a_pooler() {
    let database = TestDatabase::create().await;
    let pooler = Pooler::start(&database.config()).await;
    let connect =
        async || EventStore::options().transaction_pooler().connect(&pooler.url()).await.unwrap();
    let (store, client) = (connect().await, database.client().await);
    let (seed, _) = seeded();
    let load = Load::start(&store, seed, 3, 40);
    // Two programs: the second takes over when the first has given its lease back.
    for _ in 0..2 {
        let store = connect().await;
        let mut running = Running::start(worker::<Tally>(&store).batch_size(7));
        running.caught_up::<Tally>(&store).await;
        running.stop().await;
    }
    load.done().await;
    let mut running = Running::start(worker::<Tally>(&store));
    running.caught_up::<Tally>(&store).await;
    running.stop().await;
    assert_exact::<Tally>(&store, &client).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn beside_queries_that_take_all_connections() {
    in_time(async {
        let database = TestDatabase::create().await;
        let store = database.store_with(EventStore::options().connections(Use::Read, 2)).await;
        let running = Running::start(worker::<Tally>(&store));
        let mut taken = Vec::new();
        for _ in 0..2 {
            let client = store.database().unwrap().client().await.unwrap();
            let slow = async move { client.batch_execute("select pg_sleep(100)").await };
            taken.push(tokio::spawn(slow));
        }
        let (seed, _) = seeded();
        // It loads aggregates too, so it is another program's.
        let other = database.store().await;
        Load::start(&other, seed, 3, 40).done().await;
        let mut caught_up = running;
        caught_up.caught_up::<Tally>(&other).await;
        // Longer than the lease lasts: it was renewed meanwhile.
        tokio::time::sleep(Duration::from_secs(6)).await;
        assert!(caught_up.is_running());
        assert!(taken.iter().all(|task| !task.is_finished()), "the test tests nothing");
        caught_up.stop().await;
        for task in taken {
            task.abort();
        }
    })
    .await;
}
