//! `cargo xtask chaos`: the chaos run of projection workers, for as long as asked.

use std::ffi::OsString;

use anyhow::Result;

use crate::cargo;
use crate::services;

/// Brings the services up and becomes the chaos run; returns only on failure.
pub(crate) fn run(args: &[OsString]) -> Result<()> {
    let services = services::ensure()?;
    let mut command = cargo::command();
    command.args(["run", "--quiet", "-p", "annals-projections", "--all-features"]);
    command.args(["--example", "chaos", "--"]);
    command.args(args).env("DATABASE_URL", services.database_url);
    Err(cargo::become_command(command))
}
