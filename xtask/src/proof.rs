//! `cargo xtask proof`: the rounds that prove the publisher, as many as asked.

use std::ffi::OsString;

use anyhow::Result;

use crate::cargo;
use crate::services;

/// Brings the services up and becomes the proof; returns only on failure.
pub(crate) fn run(args: &[OsString]) -> Result<()> {
    let services = services::ensure()?;
    let mut command = cargo::command();
    command.args(["run", "--quiet", "-p", "annals-eventstore", "--features", "kafka"]);
    command.args(["--example", "proof", "--"]);
    command.args(args).env("DATABASE_URL", services.database_url);
    command.env("KAFKA_BROKERS", services.kafka_brokers?).envs(services::kafka_programs()?);
    Err(cargo::become_command(command))
}
