//! Reading the published log from a real Kafka: in order, each event once, whatever comes between.
#![cfg(feature = "kafka")]
#![allow(clippy::unwrap_used, reason = "tests")]

mod dead_letters;
mod groups;
mod loss;
mod metrics;
mod order;
mod pressure;
mod published;
mod support;
mod trouble;
