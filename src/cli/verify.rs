//! `verify`: whether the store is consistent.

use std::{fmt::Write, time::Duration};

use clap::Args;
use comfy_table::{Cell, CellAlignment};
use serde_json::{Value, json};

use super::{
    App, Exit, Failure,
    database::Database,
    output::{Bar, Output, print, print_json, table},
};
use crate::verify::{Finding, Progress, Verification};

/// Checks that the store is consistent
///
/// Versions without holes, unique positions, times that do not go back, guards in place, keys that point
/// at events, payloads that decode, snapshots that are the folds of their events. It only reads, and may
/// run while the store is in use. Connect as the owner of the schema: what another role may not see is not
/// checked.
#[derive(Debug, Args)]
#[command(
    after_help = "Exit code: 0 if the store is sound, 1 if it could not be checked, 2 if there are \
                        findings, 130 if it was stopped."
)]
pub(super) struct Arguments {
    #[command(flatten)]
    database: Database,

    /// How to print the outcome
    #[arg(long, value_enum, default_value_t)]
    output: Output,

    /// After how many seconds an append in flight counts as stuck
    #[arg(long, value_name = "SECONDS", default_value_t = 60)]
    stuck_after: u64,

    /// How many findings are shown; the others are counted
    #[arg(long, value_name = "COUNT", default_value_t = 1000)]
    max_findings: usize,
}

pub(super) async fn run(app: &App, arguments: Arguments) -> Result<Exit, Failure> {
    let Arguments { database, output, stuck_after, max_findings } = arguments;
    let store = database.open(app).await?;
    let schema = store.database()?.schema().name().to_owned();
    let bar = Bar::new();
    let drawn = bar.handle();
    let verify = store
        .verify()
        .stuck_after(Duration::from_secs(stuck_after))
        .max_findings(max_findings)
        .on_progress(move |Progress { check, done, of, .. }| {
            drawn.set_message(check.to_string());
            drawn.set_length(of.unwrap_or(done));
            drawn.set_position(done);
        });
    let verify = app.aggregates.iter().fold(verify, |verify, known| (known.verify)(verify));
    let verification = verify.run().await?;
    drop(bar);
    store.close().await;
    match output {
        Output::Text => print(&text(&schema, &verification)?)?,
        Output::Json => print_json(&document(&schema, &verification))?,
    }
    Ok(if verification.is_sound() { Exit::Success } else { Exit::Findings })
}

fn total(verification: &Verification) -> u64 {
    verification.findings.len() as u64 + verification.findings_left_out
}

fn text(schema: &str, verification: &Verification) -> Result<String, Failure> {
    let mut text = String::new();
    let up_to = verification.up_to;
    writeln!(text, "The store in the schema {schema:?}, up to position {up_to}:\n")?;
    let mut checks = table();
    let number = |number: u64| Cell::new(number).set_alignment(CellAlignment::Right);
    checks.set_header(["check", "looked at", "findings"]);
    for checked in &verification.checked {
        let (looked_at, findings) = (number(checked.looked_at), number(checked.findings));
        checks.add_row([Cell::new(checked.check), looked_at, findings]);
    }
    writeln!(text, "{checks}\n")?;
    for (index, finding) in verification.findings.iter().enumerate() {
        writeln!(text, "{}. {finding}\n   {}\n", index + 1, finding.advice())?;
    }
    if verification.findings_left_out > 0 {
        writeln!(text, "... and {} more\n", verification.findings_left_out)?;
    }
    let mut list = |title: &str, lines: Vec<String>| -> Result<(), Failure> {
        if lines.is_empty() {
            return Ok(());
        }
        writeln!(text, "{title}:")?;
        for line in lines {
            writeln!(text, "- {line}")?;
        }
        Ok(writeln!(text)?)
    };
    let unchecked = &verification.unchecked;
    list("Not looked at", unchecked.iter().map(ToString::to_string).collect())?;
    let in_flight = &verification.in_flight;
    list("In flight", in_flight.iter().map(ToString::to_string).collect())?;
    match total(verification) {
        0 if unchecked.is_empty() => writeln!(text, "All is well.")?,
        0 => writeln!(text, "All is well with what was looked at.")?,
        1 => writeln!(text, "1 finding.")?,
        many => writeln!(text, "{many} findings.")?,
    }
    Ok(text)
}

fn document(schema: &str, verification: &Verification) -> Value {
    let checks = verification.checked.iter().map(|checked| {
        json!({
            "check": checked.check.name(),
            "looked_at": checked.looked_at,
            "findings": checked.findings,
        })
    });
    let finding = |finding: &Finding| {
        json!({
            "kind": finding.kind(),
            "check": finding.check().name(),
            "message": finding.to_string(),
            "advice": finding.advice(),
            "stream": finding.stream().map(ToString::to_string),
            "version": finding.version(),
            "position": finding.position(),
        })
    };
    let unchecked = verification.unchecked.iter();
    let in_flight = verification.in_flight.iter().map(|registration| {
        json!({
            "position": registration.position,
            "pid": registration.pid,
            "prepared": registration.prepared,
            "application": registration.application,
            "state": registration.state,
            "age_seconds": registration.age.map(|age| age.as_secs_f64()),
        })
    });
    json!({
        "schema": schema,
        "sound": verification.is_sound(),
        "up_to": verification.up_to,
        "checks": checks.collect::<Vec<_>>(),
        "findings": verification.findings.iter().map(finding).collect::<Vec<_>>(),
        "findings_left_out": verification.findings_left_out,
        "unchecked": unchecked
            .map(|one| json!({ "kind": one.kind(), "message": one.to_string() }))
            .collect::<Vec<_>>(),
        "in_flight": in_flight.collect::<Vec<_>>(),
    })
}
