//! `cargo xtask stress`: the stress run of the event store's order, for as long as asked.

use std::ffi::OsString;

use anyhow::Result;

use crate::cargo;
use crate::services;

/// Brings the services up and becomes the stress run; returns only on failure.
pub(crate) fn run(args: &[OsString]) -> Result<()> {
    let services = services::ensure()?;
    let mut command = cargo::command();
    command.args(["run", "--quiet", "-p", "annals-eventstore", "--example", "stress", "--"]);
    command.args(args).env("DATABASE_URL", services.database_url);
    Err(cargo::become_command(command))
}
