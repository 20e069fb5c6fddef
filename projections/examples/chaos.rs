//! The chaos run of `tests/read_side/support/chaos.rs`, for as long as asked: `cargo xtask chaos --seconds 180`.
//!
//! It needs a PostgreSQL server in `DATABASE_URL`, where it makes a database of its own and drops it at the
//! end. The last line is the verdict; the exit code is 101 if rows or history are not exact.
#![allow(
    clippy::unwrap_used,
    dead_code,
    unused_imports,
    reason = "it is a test, with a command line"
)]

#[path = "../tests/read_side/paused.rs"]
mod paused;
#[path = "../tests/read_side/support/mod.rs"]
mod support;

use std::{process::Command, time::Duration};

use clap::Parser;
use support::chaos::{self, Run};

/// Worker processes that are killed and paused, under load and through rebuilds.
#[derive(Parser)]
struct Arguments {
    /// For how long.
    #[arg(long, default_value_t = 180)]
    seconds: u64,
    /// What the random choices follow from; drawn if not given.
    #[arg(long)]
    seed: Option<u64>,
    /// How often each read model is rebuilt meanwhile.
    #[arg(long, default_value_t = 2)]
    rebuilds: u32,
}

#[tokio::main]
async fn main() {
    // One of the workers, or the run.
    if chaos::work().await {
        return;
    }
    let Arguments { seconds, seed, rebuilds } = Arguments::parse();
    let worker = || Command::new(std::env::current_exe().unwrap());
    let (seed, length) = (seed.unwrap_or_else(rand::random), Duration::from_secs(seconds));
    println!("{}", chaos::run(Run { seed, length, rebuilds, worker: &worker }).await);
}
