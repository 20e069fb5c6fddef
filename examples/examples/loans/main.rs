//! A bank's log of loan applications as events: recorded by commands, projected into a read model
//! with history, published to Kafka, and asked where things stand, now and as of other times.

// Recording, projecting and reporting are not wired up yet.
#![allow(dead_code)]

mod args;
mod generate;
mod model;
mod progress;
mod read_model;
mod report;
mod rows;
mod verify;

use std::process::ExitCode;

use crate::{args::Args, progress::Progress, rows::Rows};

fn main() -> ExitCode {
    match run(&Args::read()) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let rows = match &args.input {
        Some(path) => Rows::open(path)?,
        None => Rows::from_bytes(
            "the generated log",
            generate::log(generate::SEED, generate::APPLICATIONS)?,
        )?,
    };
    let progress = Progress::new();
    let bytes = rows.bytes();
    let mut good = 0;
    for row in rows {
        match row? {
            Ok(_) => good += 1,
            Err(bad) => progress.line(&bad.to_string()),
        }
        progress.recorded(good, &bytes);
    }
    progress.clear();
    anyhow::bail!("{good} rows can be read, and there is no store to record them in yet")
}
