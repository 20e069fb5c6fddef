//! The order of the log, as readers see it while writers come, go, stumble and die.
#![allow(clippy::unwrap_used, reason = "these are tests")]

mod in_flight;
mod stress;
#[path = "../support/mod.rs"]
mod support;
mod writers;

use stress::{Reading, Way, run};
use support::in_time;

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn readers_see_every_event_once_and_in_order() {
    let report = in_time(run(rand::random(), Reading::UpToSafePosition, Way::Direct)).await;
    println!("{report}");
    report.assert_busy();
    assert_eq!(report.lost, 0, "{report}");
}

/// What the reader relies on holds for whichever session each of its statements gets.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn readers_behind_a_pooler_see_every_event_once_and_in_order() {
    let report = in_time(run(rand::random(), Reading::UpToSafePosition, Way::ThroughPooler)).await;
    println!("{report}");
    report.assert_busy();
    assert_eq!(report.lost, 0, "{report}");
}

/// The same harness over the rule that everybody tries first. It must find what that rule loses, or
/// it could not find what a broken registry loses.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn readers_of_all_that_is_visible_lose_events() {
    for _ in 0..5 {
        let report = in_time(run(rand::random(), Reading::UpToNewestPosition, Way::Direct)).await;
        println!("{report}");
        report.assert_busy();
        if report.lost > 0 {
            return;
        }
    }
    panic!("the harness does not find lost events");
}
