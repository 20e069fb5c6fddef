//! Bookings of trips: a flight, a hotel and a car, each reserved by a service of its own, or none of them.
//!
//! Four services, each with a database of its own. The booking service takes requests over HTTP, in as many processes as
//! are started, and its sagas have the three others reserve what a trip needs. Those fail, stall and hear things twice, as
//! services do, and every process may be killed at any moment. In the end every booking is booked, with exactly one reservation in each service, or compensated,
//! with none. `travel run` shows it, and `travel check` reads the four databases to tell whether it is so.
//!
//! Start reading at `fulfilment.rs`, which is the saga, and `agency.rs`, which makes its calls.

mod agency;
mod args;
mod booking;
mod check;
mod clients;
mod databases;
mod faults;
mod follower;
mod fulfilment;
mod gateway;
mod habits;
mod kind;
mod load;
mod overview;
mod processes;
mod progress;
mod report;
mod reservation;
mod rude;
mod run;
mod serve;
mod shop;
mod tally;

use std::{io::Write, process::ExitCode};

use annals::telemetry;
use anyhow::Context;
use clap::Parser;

use crate::{
    args::{CheckArgs, Cli, Command, LoadArgs},
    check::Verdict,
    databases::Databases,
    follower::Follower,
    shop::Shop,
};

#[tokio::main]
async fn main() -> ExitCode {
    let cli = Cli::parse();
    // Traces, too, where OTEL_EXPORTER_OTLP_ENDPOINT says. That a service is away is no news here: it is killed.
    let telemetry = telemetry::init(format!("travel-{}", cli.command.role()));
    let code = match telemetry.filter("error,tower_http=off").start() {
        // Until the end: then what is not exported yet is.
        Ok(_telemetry) => act(cli.command).await,
        Err(error) => Err(error.into()),
    };
    code.unwrap_or_else(|error| {
        eprintln!("error: {error:#}");
        ExitCode::FAILURE
    })
}

async fn act(command: Command) -> anyhow::Result<ExitCode> {
    match command {
        Command::Flight(args) | Command::Hotel(args) | Command::Car(args) => {
            serve::service(&args).await?;
        }
        Command::Booking(args) => gateway::run(&args).await?,
        Command::Load(args) => load(&args).await?,
        Command::Check(args) => return check(&args).await,
        Command::Run(args) => {
            let run::Finished { sent, books, verdict } = run::run(&args).await?;
            print(&format!("{}\n{}", report::load(&sent), report::verdict(&books, &verdict)))?;
            return Ok(code(&verdict));
        }
    }
    Ok(ExitCode::SUCCESS)
}

async fn load(args: &LoadArgs) -> anyhow::Result<()> {
    let shop = Shop::new(args.gateway.clone(), &args.key)?;
    let follower = Follower::start(&args.gateway, &args.key)?;
    let sent = load::run(shop, follower, args.pace, |_| {}).await?;
    if let Some(path) = &args.accepted {
        let ids: String = sent.accepted.iter().map(|booking| format!("{booking}\n")).collect();
        let written = std::fs::write(path, ids);
        written.with_context(|| format!("cannot write {}", path.display()))?;
    }
    for failure in sent.failed.iter().take(10) {
        eprintln!("given up: {failure}");
    }
    for wrong in sent.wrong.iter().take(10) {
        eprintln!("wrong: {wrong}");
    }
    print(&report::load(&sent))
}

async fn check(args: &CheckArgs) -> anyhow::Result<ExitCode> {
    args.databases.databases.as_ref().context("say which databases: --databases PREFIX")?;
    let accepted = args.accepted.as_deref().map(check::ids).transpose()?.unwrap_or_default();
    let databases = Databases::of(&args.databases);
    let (books, verdict) = check::check(&databases, &accepted).await?;
    print(&report::verdict(&books, &verdict))?;
    Ok(code(&verdict))
}

fn code(verdict: &Verdict) -> ExitCode {
    if verdict.is_sound() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn print(text: &str) -> anyhow::Result<()> {
    writeln!(std::io::stdout(), "{text}").context("cannot print the report")
}
