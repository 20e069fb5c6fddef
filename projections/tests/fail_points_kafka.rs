//! Each fail point of a worker that Kafka feeds: a step fails there, and the rows come out exact.
//!
//! Fail points are the program's, so all of them are in one test.
#![allow(clippy::unwrap_used, reason = "tests")]

#[allow(dead_code, reason = "this test uses a part of it")]
#[path = "kafka_fed/relay.rs"]
mod relay;
#[allow(dead_code, unused_imports, reason = "this test uses a part of it")]
#[path = "read_side/support/mod.rs"]
mod support;

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use annals_projections::testkit::faults::KAFKA_FED_FAIL_POINTS;

use crate::{
    relay::Relay,
    support::{
        Running,
        account::{Balance, move_some},
        database::TestDatabase,
        eventually, in_time, lease,
        load::seeded,
        oracle::assert_exact,
    },
};

/// Workers here are paused from outside.
mod paused {
    pub(crate) fn pause_if_worker() {}
    pub(crate) fn stall_once() {}
}

#[tokio::test(flavor = "multi_thread")]
async fn what_fails_at_any_point_comes_out_exact() {
    in_time(async {
        let database = TestDatabase::create().await;
        let (store, client) = (database.store().await, database.client().await);
        let (_, mut rng) = seeded();
        let relay = Relay::start(&store).await;
        let worker = relay.worker::<Balance>(&store).batch_size(7).lease(lease(1000));
        let mut running = Running::start(worker);
        for _ in 0..3 {
            move_some(&store, &mut rng).await;
        }
        running.caught_up::<Balance>(&store).await;
        for point in KAFKA_FED_FAIL_POINTS {
            // It comes by, ...
            let came = Arc::new(AtomicUsize::new(0));
            let counted = came.clone();
            fail::cfg_callback(point, move || {
                counted.fetch_add(1, Ordering::Relaxed);
            })
            .unwrap();
            eventually(point, || async {
                relay.published().await;
                move_some(&store, &mut seeded().1).await;
                came.load(Ordering::Relaxed) > 0
            })
            .await;
            running.caught_up::<Balance>(&store).await;
            // ... and fails there again and again, for each of its slices.
            fail::cfg(point, "4*return").unwrap();
            for _ in 0..5 {
                move_some(&store, &mut rng).await;
            }
            running.caught_up::<Balance>(&store).await;
            fail::remove(point);
            assert_exact::<Balance>(&store, &client).await;
        }
        running.stop().await;
    })
    .await;
}
