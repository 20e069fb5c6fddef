//! Each fail point of a rebuild, beside a worker that goes on: what fails there is gone on with, and all comes out exact.
//!
//! Fail points are the program's, so all of them are in one test.
#![allow(clippy::unwrap_used, reason = "tests")]

#[allow(dead_code, unused_imports, reason = "this test uses a part of it")]
#[path = "read_side/support/mod.rs"]
mod support;

use annals_eventstore::testkit::faults::Injected;
use annals_projections::{ProjectionError, Rebuild, testkit::faults::REBUILD_FAIL_POINTS};

use crate::support::{
    Running,
    database::TestDatabase,
    in_time, lease,
    ledger::Tally,
    load::{append_some, seeded},
    oracle::assert_exact,
    worker,
};

/// Workers here are paused from outside.
mod paused {
    pub(crate) fn pause_if_worker() {}
    pub(crate) fn stall_once() {}
}

fn is_injected(error: &ProjectionError) -> bool {
    let causes =
        std::iter::successors(Some(error as &dyn std::error::Error), |error| error.source());
    causes.into_iter().any(|cause| cause.is::<Injected>())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_fails_at_any_point_comes_out_exact() {
    in_time(async {
        let database = TestDatabase::create().await;
        let (store, client) = (database.store().await, database.client().await);
        let (_, mut rng) = seeded();
        let mut running = Running::start(worker::<Tally>(&store));
        let rebuild = Rebuild::<Tally>::of(&store).lease(lease(60_000));
        append_some(&store, &mut rng).await;
        running.caught_up::<Tally>(&store).await;
        for point in REBUILD_FAIL_POINTS {
            let rolls_back = point.contains("roll");
            let run = async || match rolls_back {
                true => rebuild.rollback().await,
                false => rebuild.run().await.map(drop),
            };
            append_some(&store, &mut rng).await;
            fail::cfg(point, "return").unwrap();
            let error = run().await.expect_err(point);
            assert!(is_injected(&error), "{point}: {error:?}");
            fail::remove(point);
            for _ in 0..2 {
                append_some(&store, &mut rng).await;
                running.caught_up::<Tally>(&store).await;
                assert_exact::<Tally>(&store, &client).await;
                run().await.unwrap_or_else(|error| panic!("{point}: {error:?}"));
            }
            append_some(&store, &mut rng).await;
            running.caught_up::<Tally>(&store).await;
            assert_exact::<Tally>(&store, &client).await;
        }
        running.stop().await;
    })
    .await;
}
