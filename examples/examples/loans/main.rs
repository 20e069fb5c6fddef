//! A bank's log of loan applications as events: recorded by commands, projected into a read model
//! with history, published to Kafka, and asked where things stand, now and as of other times.

mod app;
mod args;
mod chart;
mod generate;
mod import;
mod model;
mod progress;
mod publish;
mod read_model;
mod rebuild;
mod report;
mod rows;
mod verify;

use std::{io::Write, process::ExitCode};

use annals::telemetry;
use anyhow::Context;

use crate::{
    app::Finished,
    args::{Args, Format},
    progress::Progress,
};

/// Exit code if there were rows that cannot be read.
const REJECTED_ROWS: u8 = 2;

#[tokio::main]
async fn main() -> ExitCode {
    let args = Args::read();
    // Traces, too, where OTEL_EXPORTER_OTLP_ENDPOINT says.
    let result = match telemetry::init("loans").filter("error").start() {
        // Until the end: then what is not exported yet is.
        Ok(_telemetry) => {
            let progress = Progress::new();
            let result = app::run(&args, &progress).await;
            let result = result.and_then(|finished| print(&args, finished));
            progress.clear();
            result
        }
        Err(error) => Err(error.into()),
    };
    result.unwrap_or_else(|error| {
        eprintln!("error: {error:#}");
        ExitCode::FAILURE
    })
}

fn print(args: &Args, finished: Finished) -> anyhow::Result<ExitCode> {
    let Finished { report, unpublished } = finished;
    let text = match args.format {
        Format::Text => report.text(),
        Format::Json => report.json()?,
    };
    writeln!(std::io::stdout(), "{text}").context("cannot print the report")?;
    // As text, the report says so itself.
    if args.format == Format::Json && report.events > 0 && report.recorded_before == report.events {
        eprintln!("nothing new: all {} rows had been recorded before", report.recorded_before);
    }
    match unpublished {
        Some(error) => Err(error.context("not everything is published")),
        None if report.rejected_rows > 0 => Ok(ExitCode::from(REJECTED_ROWS)),
        None => Ok(ExitCode::SUCCESS),
    }
}
