//! Projections that Kafka feeds, against the real PostgreSQL and the real Kafka: they end with the same rows, and the
//! same history, as those that the store feeds.
#![allow(clippy::unwrap_used, reason = "tests")]

mod failures;
mod foreign;
mod loss;
mod members;
mod pressure;
mod processes;
mod relay;
mod repeated;
mod rows;
#[allow(dead_code, unused_imports, reason = "these tests use a part of it")]
#[path = "../read_side/support/mod.rs"]
mod support;

/// Workers here are paused from outside.
mod paused {
    pub(crate) fn pause_if_worker() {}
}
