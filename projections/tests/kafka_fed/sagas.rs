//! Sagas that Kafka feeds.

use std::{sync::Arc, time::Duration};

use annals_projections::{Start, Worker, control, saga};

use crate::{
    booking::{self, Booking, Mood, Services, assert_settled, one_of, request},
    relay::Relay,
    support::{
        Running,
        database::{TestDatabase, value},
        eventually, lease,
    },
};

#[tokio::test(flavor = "multi_thread")]
async fn each_is_done_once_or_undone() {
    let database = TestDatabase::create().await;
    let (store, client) = (database.store().await, Arc::new(database.client().await));
    client.batch_execute(booking::TABLES).await.unwrap();
    let relay = Relay::start(&store).await;
    let mood = |call: &booking::Call, attempt: &saga::Attempt| match call {
        booking::Call::Book if one_of(5, attempt.id) => Mood::Refuses,
        _ if attempt.attempt == 1 && one_of(3, attempt.id) => Mood::FailsAfter,
        _ => Mood::Fine,
    };
    let worker = || {
        let services = Services::new(&store, &client).mood(mood);
        Worker::new(&store)
            .saga_from::<Booking>(Start::Beginning, services)
            .kafka(relay.source())
            .lease(lease(1500))
            .poll_interval(Duration::from_millis(20))
    };
    let key = |number: usize| format!("trip-{number}");
    // One that is dropped wherever it is, and the one that goes on.
    let first = Running::start(worker());
    for number in 0..10 {
        request(&store, &key(number)).await;
    }
    tokio::time::sleep(Duration::from_millis(300)).await;
    first.abort().await;
    let running = Running::start(worker());
    for number in 10..30 {
        request(&store, &key(number)).await;
    }
    let keys: Vec<_> = (0..30).map(key).collect();
    eventually("all have ended", || async {
        let sql = "select count(*) from annals.sagas where status in ('completed', 'compensated')";
        value::<i64>(&client, sql).await == keys.len() as i64
    })
    .await;
    let status = control::status(&store).await.unwrap();
    assert_eq!(status.len(), 1, "{status:?}");
    let number = std::sync::atomic::AtomicUsize::new(30);
    relay
        .feeds(&status[0].name, || async {
            let next = number.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            request(&store, &key(next)).await;
        })
        .await;
    running.stop().await;
    let completed = assert_settled(&client, &keys).await;
    assert!((1..30).contains(&completed), "{completed} of 30 were booked");
}
