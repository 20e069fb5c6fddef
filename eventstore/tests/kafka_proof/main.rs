//! One short round of each scenario of the proof: the publisher under load and faults, and then the checker,
//! which must not have a single finding. `cargo xtask proof` plays more of them, and longer ones.
#![cfg(feature = "kafka")]
// Also in the helpers of tests.
#![allow(clippy::unwrap_used)]

mod grounds;
#[path = "../kafka_support/mod.rs"]
mod kafka_support;
mod load;
mod round;
mod scenario;
#[allow(dead_code, reason = "each test program uses a part of it")]
#[path = "../support/server.rs"]
mod server;

use std::time::Duration;

use kafka_support::Process;
use scenario::Scenario;

/// Not a test: what [`Process`] runs.
#[tokio::test(flavor = "multi_thread")]
async fn publisher_process() {
    Process::run().await;
}

/// Brokers and publishers of several rounds at a time would have no machine left.
static TURN: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());

async fn is_proven(scenario: Scenario) {
    let _turn = TURN.lock().await;
    let seed = rand::random();
    println!("{} with the seed {seed}", scenario.name());
    let mut grounds = scenario.grounds().await;
    let playing = round::play(scenario, &mut grounds, seed, Duration::ZERO);
    let outcome = tokio::time::timeout(Duration::from_secs(600), playing).await.unwrap();
    println!("{outcome}");
    assert!(outcome.findings.is_empty(), "{:#?}", outcome.complaints().collect::<Vec<_>>());
    assert!(outcome.faults > 0 && outcome.events > 100, "{outcome}");
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_at_every_fail_point() {
    is_proven(Scenario::Killed).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_at_every_fail_point_at_least_once() {
    is_proven(Scenario::KilledAtLeastOnce).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_answer_to_a_commit_is_lost() {
    is_proven(Scenario::Answers).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn paused_for_longer_than_lease_and_transaction() {
    is_proven(Scenario::Paused).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_paused_one_goes_on_while_the_next_takes_over() {
    is_proven(Scenario::Crossed).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn ten_takeovers_in_a_row() {
    is_proven(Scenario::Takeovers).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn several_started_together() {
    is_proven(Scenario::Several).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_broker_is_killed_and_restarted() {
    is_proven(Scenario::Broker).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn each_node_of_a_cluster_is_killed() {
    is_proven(Scenario::Nodes).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_network_is_cut() {
    is_proven(Scenario::Network).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_database_crashes_and_is_restarted() {
    is_proven(Scenario::Database).await;
}
