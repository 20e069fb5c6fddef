//! `cargo xtask demo`: the larger examples against the services.

use std::ffi::OsString;

use anyhow::Result;

use crate::cargo;
use crate::services;

/// Brings the services up and becomes the loans example; returns only on failure.
pub(crate) fn loans(args: &[OsString]) -> Result<()> {
    cargo::check_compilers()?;
    let services = services::ensure()?;
    let mut command = example("loans");
    command.args(args);
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
    Err(cargo::become_command(command))
}

/// Brings the services up and becomes the travel example; returns only on failure.
pub(crate) fn travel(args: &[OsString]) -> Result<()> {
    // It needs no Kafka, but what it is built with does.
    cargo::check_compilers()?;
    let services = services::ensure()?;
    let mut command = example("travel");
    command.arg("run").args(args);
    command.env("DATABASE_URL", services.database_url);
    Err(cargo::become_command(command))
}

fn example(name: &str) -> std::process::Command {
    let mut command = cargo::command();
    command.args(["run", "--release", "--quiet"]);
    command.args(["-p", "annals-examples", "--example", name, "--"]);
    // --quiet keeps cargo's chatter out of the example's output, so say why nothing moves.
    eprintln!("demo: building the example {name}, which takes some minutes the first time");
    command
}
