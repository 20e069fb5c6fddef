//! Annals side by side with others, on one server: `cargo xtask bench` runs it.
//!
//! See README.md beside this for what is measured, and how everybody is set up.

use std::path::PathBuf;

use anyhow::{Context, Result};
use clap::Parser;

mod bank;
mod bench;
mod client;
mod contestant;
mod measure;
mod report;
mod server;

use crate::{bench::Name, measure::Effort, report::Report, server::Server};

/// Runs Annals beside others and prints how fast each is.
#[derive(Parser)]
#[command(name = "cargo xtask bench")]
struct Args {
    /// What to run: by default everything that takes minutes and not hours.
    names: Vec<Name>,
    /// Short rounds and few of them: under two minutes in all.
    #[arg(long)]
    quick: bool,
    /// Where to write the figures as JSON.
    #[arg(long, env = "ANNALS_BENCH_JSON", default_value = "target/annals-bench.json")]
    json: PathBuf,
}

#[tokio::main]
async fn main() -> Result<()> {
    let args = Args::parse();
    let url = std::env::var("DATABASE_URL")
        .context("DATABASE_URL names no server: run this as `cargo xtask bench`")?;
    let server = Server::connect(&url).await?;
    println!("{}", serde_json::to_string_pretty(&server.environment)?);
    let effort = if args.quick { Effort::QUICK } else { Effort::FULL };
    let names = if args.names.is_empty() { Name::DEFAULT.to_vec() } else { args.names };
    let mut report = Report { environment: server.environment.clone(), entries: Vec::new() };
    for name in names {
        eprintln!("bench: {}", name.as_str());
        let entry = name.run(&server, effort).await;
        // Also what a failed benchmark leaves.
        server.drop_databases().await?;
        report.entries.push(entry.with_context(|| format!("{} failed", name.as_str()))?);
    }
    println!("{}", report.table());
    let json = serde_json::to_string_pretty(&report.json()?)?;
    std::fs::write(&args.json, json + "\n")
        .with_context(|| format!("cannot write {}", args.json.display()))?;
    println!("written to {}", args.json.display());
    Ok(())
}
