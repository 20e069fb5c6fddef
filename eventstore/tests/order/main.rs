//! The order of the log, as readers see it while writers come, go, stumble and die.
#![allow(clippy::unwrap_used, reason = "these are tests")]

mod in_flight;
mod readers;
mod stress;
#[path = "../support/mod.rs"]
mod support;
mod writers;

use annals_eventstore::conformance::history::Violation;
use readers::Reading;
use stress::{Report, Run, run};
use support::in_time;

async fn stress(reading: Reading) -> Report {
    let folder = tempfile::tempdir().unwrap();
    let seed = rand::random();
    let report =
        in_time(run(Run { seed, reading, length: None, folder: folder.path().to_owned() })).await;
    println!("{report}");
    if !report.verdict.is_sound() && reading == Reading::UpToSafePosition {
        println!("the history is kept in {}", folder.keep().display());
    }
    report.assert_busy();
    report
}

/// Five readers, fourteen writers. `cargo xtask stress --seconds 60` does the same for longer.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn readers_see_every_event_once_and_in_order() {
    let report = stress(Reading::UpToSafePosition).await;
    assert!(report.verdict.is_sound(), "{report}");
}

/// The same harness over the rule that everybody tries first. It must find what that rule loses, or
/// it could not find what a broken registry loses.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn readers_of_all_that_is_visible_lose_events() {
    for _ in 0..5 {
        let report = stress(Reading::UpToNewestPosition).await;
        let skipped = |violation: &Violation| matches!(violation, Violation::Skipped { .. });
        // Only readers are wrong here; the log is sound.
        assert!(report.verdict.violations.iter().all(skipped), "{report}");
        if !report.verdict.is_sound() {
            return;
        }
    }
    panic!("the harness does not find lost events");
}
