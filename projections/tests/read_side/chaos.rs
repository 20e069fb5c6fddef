//! The chaos run of `support/chaos.rs`, for a short while.

use std::{process::Command, time::Duration};

use crate::support::chaos::{Run, run, work};

/// Not a test: what the test below starts in processes of their own.
#[tokio::test(flavor = "multi_thread")]
async fn worker_process() {
    work().await;
}

/// `cargo xtask chaos --seconds 180` does the same for longer.
#[tokio::test(flavor = "multi_thread")]
async fn rows_and_history_are_exact_after_kills_and_pauses() {
    let worker = || {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["--exact", "chaos::worker_process", "--nocapture"]);
        command
    };
    let (seed, length) = (rand::random(), Duration::from_secs(15));
    println!("{}", run(Run { seed, length, rebuilds: 1, worker: &worker }).await);
}
