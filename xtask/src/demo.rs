//! `cargo xtask demo`: the loans example against the services.

use std::ffi::OsString;

use anyhow::Result;

use crate::cargo;
use crate::services;

/// Brings the services up and becomes the loans example; returns only on failure.
pub(crate) fn run(args: &[OsString]) -> Result<()> {
    cargo::check_compilers()?;
    let services = services::ensure()?;
    let mut command = cargo::command();
    command.args(["run", "--release", "--quiet"]);
    command.args(["-p", "annals-examples", "--example", "loans", "--"]).args(args);
    command.env("DATABASE_URL", services.database_url);
    match services.kafka_brokers {
        Ok(brokers) => {
            command.env("KAFKA_BROKERS", brokers);
        }
        Err(error) => {
            eprintln!("demo: going on without Kafka: {error:#}");
            command.arg("--no-kafka");
        }
    }
    // --quiet keeps cargo's chatter out of the example's output, so say why nothing moves.
    eprintln!("demo: building the loans example, which takes some minutes the first time");
    Err(cargo::become_command(command))
}
