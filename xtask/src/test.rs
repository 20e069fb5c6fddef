//! `cargo xtask test`: every test of the workspace against the services.

use std::ffi::OsString;

use anyhow::Result;

use crate::cargo;
use crate::services;

/// Brings the services up and becomes `cargo test`; returns only on failure.
pub(crate) fn run(args: &[OsString]) -> Result<()> {
    cargo::check_compilers()?;
    let services = services::ensure()?;
    services::pooler::ensure_installed()?;
    let mut command = cargo::command();
    command.args(["test", "--workspace", "--all-features"]).args(args);
    command.env("DATABASE_URL", services.database_url);
    // The demo can do without Kafka, the tests cannot: they would pass without having tested.
    command.env("KAFKA_BROKERS", services.kafka_brokers?);
    Err(cargo::become_command(command))
}
