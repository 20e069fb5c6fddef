//! The rounds of `tests/kafka_proof/`, as many and as long as asked: `cargo xtask proof --rounds 10`.
//!
//! It needs a PostgreSQL server in `DATABASE_URL` and a broker in `KAFKA_BROKERS`, and starts more of both. The
//! last line is the verdict; the exit code is 1 if it is not PROVEN.
#![allow(clippy::unwrap_used, dead_code, reason = "it is a test, with a command line")]

#[path = "../tests/kafka_proof/grounds.rs"]
mod grounds;
#[path = "../tests/kafka_support/mod.rs"]
mod kafka_support;
#[path = "../tests/kafka_proof/load.rs"]
mod load;
#[path = "../tests/kafka_proof/round.rs"]
mod round;
#[path = "../tests/kafka_proof/scenario.rs"]
mod scenario;
#[path = "../tests/support/server.rs"]
mod server;

use std::{panic::AssertUnwindSafe, process::ExitCode, time::Duration};

use clap::{Parser, builder::PossibleValuesParser};
use futures::FutureExt as _;
use kafka_support::Process;
use scenario::Scenario;

/// The publisher is killed, paused, cut off and left without its servers; topics and store are compared after
/// each round.
#[derive(Parser)]
struct Arguments {
    /// How many rounds of each scenario.
    #[arg(long, default_value_t = 10)]
    rounds: u32,
    /// For how long a round does harm; each does all of its harm once at least.
    #[arg(long, default_value_t = 15)]
    seconds: u64,
    /// Only this scenario; several times for several.
    #[arg(long, value_name = "NAME", value_parser = PossibleValuesParser::new(Scenario::ALL.map(Scenario::name)))]
    only: Vec<String>,
    /// What the random choices follow from; drawn if not given.
    #[arg(long)]
    seed: Option<u64>,
}

#[derive(Default)]
struct Total {
    rounds: u32,
    faults: usize,
    events: u64,
    findings: usize,
    broken: u32,
}

#[tokio::main]
async fn main() -> ExitCode {
    // One of the publishers, or the run.
    if Process::is_one() {
        Process::run().await;
        return ExitCode::SUCCESS;
    }
    let Arguments { rounds, seconds, only, seed } = Arguments::parse();
    let seed: u64 = seed.unwrap_or_else(rand::random);
    println!("seed {seed}");
    let mut total = Total::default();
    let is_chosen =
        |scenario: &Scenario| only.is_empty() || only.iter().any(|n| n == scenario.name());
    for scenario in Scenario::ALL.into_iter().filter(is_chosen) {
        let mut grounds = scenario.grounds().await;
        for round in 1..=rounds {
            let seed = seed.wrapping_add(u64::from(round));
            let playing = round::play(scenario, &mut grounds, seed, Duration::from_secs(seconds));
            // A round that breaks off has said why.
            let outcome = AssertUnwindSafe(playing).catch_unwind().await;
            total.rounds += 1;
            let Ok(outcome) = outcome else {
                println!("{} {round}/{rounds}: broken off", scenario.name());
                total.broken += 1;
                // Whatever state they were left in.
                grounds = scenario.grounds().await;
                continue;
            };
            println!("{} {round}/{rounds}: {outcome}", scenario.name());
            outcome.complaints().for_each(|complaint| println!("  {complaint}"));
            total.faults += outcome.faults;
            total.events += outcome.events;
            total.findings += outcome.findings.len();
        }
    }
    let Total { rounds, faults, events, findings, broken } = total;
    let is_proven = findings == 0 && broken == 0 && rounds > 0;
    println!(
        "{}: {rounds} rounds, {faults} faults, {events} events, {findings} findings, {broken} broken off",
        if is_proven { "PROVEN" } else { "NOT PROVEN" }
    );
    ExitCode::from(u8::from(!is_proven))
}
