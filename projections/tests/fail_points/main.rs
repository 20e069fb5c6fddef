//! Each fail point of workers, and those of the store on their way: a step fails or loses its answer, and the process ends there,
//! and all comes out exact.
//!
//! Fail points are the program's: all that fail in this one are in one test, and those that end it are in processes of
//! their own.
#![allow(clippy::unwrap_used, reason = "tests")]

#[path = "../sagas/booking.rs"]
#[allow(dead_code, reason = "these tests use a part of it")]
mod booking;
mod scene;
#[path = "../sagas/support.rs"]
#[allow(dead_code, reason = "these tests use a part of it")]
mod support;

use std::{
    process::{Command, ExitStatus, Stdio},
    time::Duration,
};

use annals_eventstore::{EventStore, testkit::faults::STORE_FAIL_POINTS};
use annals_projections::testkit::faults::PROJECTION_FAIL_POINTS;

use crate::{
    scene::Work,
    support::{Running, in_time},
};

/// Where this is set, this program is a worker on the store with that URL, and ends at the fail point.
const URL: &str = "ANNALS_TEST_FAIL_POINT_URL";
const POINT: &str = "ANNALS_TEST_FAIL_POINT";

/// Those that a worker comes by.
fn points() -> impl Iterator<Item = &'static str> {
    PROJECTION_FAIL_POINTS.into_iter().chain(STORE_FAIL_POINTS)
}

/// Not a test: what the tests below start in a process of its own.
#[tokio::test(flavor = "multi_thread")]
async fn worker_process() {
    let Ok(url) = std::env::var(URL) else { return };
    let point = std::env::var(POINT).unwrap();
    fail::cfg_callback(point, || std::process::abort()).unwrap();
    let store = EventStore::connect(&url).await.unwrap();
    let (client, connection) = tokio_postgres::connect(&url, tokio_postgres::NoTls).await.unwrap();
    tokio::spawn(connection);
    Work::new(store, client.into()).worker().run().await.unwrap();
}

async fn process(url: &str, point: &str) -> ExitStatus {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "worker_process", "--nocapture"])
        .env(URL, url)
        .env(POINT, point)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let ended = async {
        loop {
            if let Some(status) = child.try_wait().unwrap() {
                return status;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    let ended = tokio::time::timeout(Duration::from_secs(60), ended).await;
    if ended.is_err() {
        drop(child.kill());
    }
    ended.unwrap_or_else(|_| panic!("it does not come by {point}"))
}

#[tokio::test(flavor = "multi_thread")]
async fn what_fails_at_any_point_comes_out_exact() {
    in_time(async {
        let work = Work::begin().await;
        let running = Running::start(work.worker());
        for point in points() {
            // Each of the next three times.
            fail::cfg(point, "3*return").unwrap();
            work.request(point).await;
            work.settled().await;
            fail::remove(point);
        }
        work.assert_exact().await;
        running.stop().await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_dies_at_any_point_leaves_nothing_half_done() {
    in_time(async {
        let work = Work::begin().await;
        for point in points() {
            work.request(point).await;
            let status = process(&work.url(), point).await;
            assert!(!status.success(), "{point}: {status}");
        }
        let running = Running::start(work.worker());
        work.settled().await;
        work.assert_exact().await;
        running.stop().await;
    })
    .await;
}
