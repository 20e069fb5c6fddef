//! Projections that Kafka feeds, against the real PostgreSQL and the real Kafka: they end with the same rows, and the
//! same history, as those that the store feeds.
#![allow(clippy::unwrap_used, reason = "tests")]

#[allow(dead_code, reason = "these tests use a part of it")]
#[path = "../sagas/booking.rs"]
mod booking;
mod brokers;
#[allow(dead_code, reason = "these tests use a part of it")]
#[path = "../../../eventstore/tests/kafka_support/cluster.rs"]
mod cluster;
mod evolution;
mod failures;
mod foreign;
mod loss;
mod mapped;
mod members;
mod pressure;
mod processes;
mod relay;
mod repeated;
mod rows;
mod sagas;
#[cfg(feature = "kafka-tls")]
#[path = "../../../eventstore/tests/kafka_support/secured.rs"]
mod secured;
#[cfg(feature = "kafka-tls")]
mod security;
#[allow(dead_code, unused_imports, reason = "these tests use a part of it")]
#[path = "../read_side/support/mod.rs"]
mod support;

/// Workers here are paused from outside.
mod paused {
    pub(crate) fn pause_if_worker() {}
    pub(crate) fn stall_once() {}
}
