//! `cargo xtask bench`: Annals side by side with others, on the services.

use std::ffi::OsString;

use anyhow::Result;

use crate::cargo;
use crate::services;

/// Brings the services up and becomes the side-by-side program; returns only on failure.
pub(crate) fn run(args: &[OsString]) -> Result<()> {
    cargo::check_openssl()?;
    let services = services::ensure()?;
    let mut command = cargo::command();
    command.args(["run", "--release", "--quiet", "-p", "annals-benches", "--features", "compare"]);
    command.args(["--bin", "annals-bench", "--"]).args(args);
    command.env("DATABASE_URL", services.database_url);
    match services.kafka_brokers {
        Ok(brokers) => {
            command.env("KAFKA_BROKERS", brokers);
        }
        // Most of it needs none; the program says what is left out.
        Err(error) => eprintln!("bench: {error:#}"),
    }
    command.env("ANNALS_BENCH_JSON", cargo::target_directory()?.join("annals-bench.json"));
    // --quiet keeps cargo's chatter out of the table, so say why nothing moves.
    eprintln!("bench: building, which takes some minutes the first time");
    Err(cargo::become_command(command))
}
