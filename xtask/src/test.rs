//! `cargo xtask test`: every test of the workspace against the services, or those of the store on a
//! certain version of PostgreSQL.

use std::ffi::OsString;
use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::cargo;
use crate::services::{self, Major};

/// The test programs that need PostgreSQL and nothing else.
const ON_POSTGRES: &[&str] = &[
    "conformance",
    "fail_points",
    "faults",
    "kit",
    "leader",
    "order",
    "postgres",
    "read_side",
    "sagas",
    "tls",
];

/// Brings the services up and becomes `cargo test`; returns only on failure.
pub(crate) fn run(args: &[OsString]) -> Result<()> {
    cargo::check_compilers()?;
    cargo::check_openssl()?;
    let services = services::ensure()?;
    services::pooler::ensure_installed()?;
    let mut command = cargo_test();
    command.args(args);
    command.env("DATABASE_URL", services.database_url);
    // The demo can do without Kafka, the tests cannot: they would pass without having tested.
    command.env("KAFKA_BROKERS", services.kafka_brokers?);
    // Some start brokers of their own.
    command.envs(services::kafka_programs()?);
    Err(cargo::become_command(command))
}

/// Runs the store's tests, or those that `args` choose, on a server of this version, and stops it.
pub(crate) fn run_on_postgres(major: Major, args: &[OsString]) -> Result<()> {
    cargo::check_compilers()?;
    cargo::check_openssl()?;
    let mut command = cargo_test();
    if chooses_tests(args) {
        command.args(args);
    } else {
        command.args(ON_POSTGRES.iter().flat_map(|program| ["--test", program])).args(args);
    }
    // One that is meant for Kafka fails, rather than passing without having tested.
    command.env_remove("KAFKA_BROKERS");
    let server = services::Temporary::start(major)?;
    command.env("DATABASE_URL", server.url());
    let status = command.status().context("cannot start cargo");
    server.stop()?;
    let status = status?;
    ensure!(status.success(), "the tests on PostgreSQL {major} failed: {status}");
    eprintln!("test: passed on PostgreSQL {major}");
    Ok(())
}

/// `cargo test` with the same packages and features in every run, so that nothing is compiled twice.
fn cargo_test() -> Command {
    let mut command = cargo::command();
    command.args(["test", "--workspace", "--all-features"]);
    command
}

/// Whether arguments for `cargo test` say which programs to run.
fn chooses_tests(args: &[OsString]) -> bool {
    let for_cargo = args.iter().take_while(|argument| *argument != "--");
    for_cargo.filter_map(|argument| argument.to_str()).any(|argument| {
        ["--test", "--tests", "--lib", "--doc", "--all-targets"]
            .iter()
            .any(|option| argument == *option || argument.starts_with(&format!("{option}=")))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_choice_of_test_programs_takes_the_place_of_ours() {
        let of = |line: &str| line.split(' ').map(OsString::from).collect::<Vec<_>>();
        for line in ["--test order", "--test=order", "--no-fail-fast --lib", "--doc"] {
            assert!(chooses_tests(&of(line)), "{line}");
        }
        for line in ["killed", "--no-fail-fast", "-- --test order", "-- --test-threads=1"] {
            assert!(!chooses_tests(&of(line)), "{line}");
        }
    }
}
