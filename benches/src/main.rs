//! Annals side by side with others, on one server: `cargo xtask bench` runs it.
//!
//! See README.md beside this for what is measured, and how everybody is set up.

use std::path::PathBuf;

use anyhow::{Context, Result};
use clap::Parser;

mod bank;
mod bench;
mod broker;
mod client;
mod contestant;
mod cpu;
mod file;
mod measure;
mod report;
mod server;

use crate::{
    bench::{How, Name},
    broker::Broker,
    contestant::Alone,
    measure::Effort,
    report::Report,
    server::Server,
};

/// Runs Annals beside others and prints how fast each is.
#[derive(Parser)]
#[command(name = "cargo xtask bench")]
struct Args {
    /// What to run: by default everything that takes minutes and not hours.
    names: Vec<Name>,
    /// Short rounds and few of them: under two minutes in all.
    #[arg(long)]
    quick: bool,
    /// Leave the other crates out, to profile Annals.
    #[arg(long)]
    alone: bool,
    /// How many events the largest store of `growth` has.
    #[arg(long, default_value_t = 10_000_000, value_name = "EVENTS")]
    largest: i64,
    /// Where to write the figures as JSON: they take the place of earlier ones of the same benchmarks.
    #[arg(long, env = "ANNALS_BENCH_JSON", default_value = "target/annals-bench.json")]
    json: PathBuf,
    /// Be one of the processes of `processes`, on this database.
    #[arg(long, hide = true, value_name = "URL")]
    child_of: Option<String>,
    /// Be the process of `rebuild` whose memory is measured, on this database.
    #[arg(long, hide = true, value_name = "URL")]
    rebuild_of: Option<String>,
}

#[tokio::main]
async fn main() -> Result<()> {
    let args = Args::parse();
    if let Some(url) = args.child_of {
        return bench::processes::child(&url).await;
    }
    if let Some(url) = args.rebuild_of {
        return bench::read_side::rebuild::child(&url).await;
    }
    let url = std::env::var("DATABASE_URL")
        .context("DATABASE_URL names no server: run this as `cargo xtask bench`")?;
    let server = Server::connect(&url).await?;
    println!("{}", serde_json::to_string_pretty(&server.environment)?);
    let effort = if args.quick { Effort::QUICK } else { Effort::FULL };
    let alone = if args.alone { Alone::Yes } else { Alone::No };
    let how = How { effort, alone, largest: args.largest };
    let broker = Broker::from_environment()?;
    let names = match (args.names, &broker) {
        (names, _) if !names.is_empty() => names,
        (_, Some(_)) => Name::DEFAULT.to_vec(),
        (_, None) => {
            eprintln!("bench: without what needs Kafka: KAFKA_BROKERS names no broker");
            Name::DEFAULT.into_iter().filter(|name| !name.needs_broker()).collect()
        }
    };
    let mut report = Report { environment: server.environment.clone(), entries: Vec::new() };
    for name in names {
        eprintln!("bench: {}", name.as_str());
        let entry = name.run(&server, broker.as_ref(), how).await;
        // Also what a failed benchmark leaves.
        server.drop_databases().await?;
        if let Some(broker) = &broker {
            broker.delete_topics().await?;
        }
        report.entries.push(entry.with_context(|| format!("{} failed", name.as_str()))?);
    }
    println!("{}", report.table());
    file::merge_into(&args.json, report.json())?;
    file::merge_into(&file::of_environments(&args.json), report.environments()?)?;
    println!("written to {}", args.json.display());
    Ok(())
}
