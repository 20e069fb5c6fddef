//! Worker processes that are killed and paused at random, under load and through rebuilds, while Kafka feeds them.

use std::{process::Command, time::Duration};

use crate::{
    relay::Relay,
    support::{
        chaos::{Run, TOPICS, run_on, work},
        database::TestDatabase,
    },
};

/// Not a test: what the test below starts in processes of their own.
#[tokio::test(flavor = "multi_thread")]
async fn worker_process() {
    work().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_and_history_are_exact_after_kills_and_pauses() {
    let database = TestDatabase::create().await;
    let mut relay = Relay::start(&database.store().await).await;
    let topics = format!("{} {}", relay.brokers, relay.context);
    let worker = || {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["--exact", "processes::worker_process", "--nocapture"]);
        command.env(TOPICS, &topics);
        command
    };
    let (seed, length) = (rand::random(), Duration::from_secs(15));
    let run = Run { seed, length, rebuilds: 1, worker: &worker };
    println!("{}", run_on(&database, run).await);
    relay.stop().await;
}
