//! `shapes`: whether the stored shapes of events are still those of the lock file.

use std::{fmt::Write, path::PathBuf};

use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::{
    App, Exit, Failure,
    output::{Output, print, print_json},
};
use crate::{LockError, ShapeChange, ShapeKey};

/// Holds the shapes of stored events against a lock file
#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Fails if a stored shape changed without a new version, or the file is not up to date
    #[command(after_help = "Exit code: 0 if nothing differs, 1 if the file cannot be read, 2 if \
                            something differs.")]
    Check {
        #[command(flatten)]
        lock: LockFile,

        /// How to print the differences
        #[arg(long, value_enum, default_value_t)]
        output: Output,
    },
    /// Adds new types and versions to the file, or makes it
    #[command(
        after_help = "Exit code: 0 if the file is up to date now, 1 if it cannot be read or \
                            written, 2 if a shape in it changed: then it stays as it is."
    )]
    Write {
        #[command(flatten)]
        lock: LockFile,
    },
    /// Prints the shapes that the code stores, as a lock file
    Show,
}

#[derive(Debug, Args)]
pub(super) struct LockFile {
    /// The lock file, as seen from the present directory
    #[arg(long = "lock", value_name = "PATH", default_value = "events.lock")]
    path: PathBuf,
}

pub(super) fn run(app: &App, command: Command) -> Result<Exit, Failure> {
    if app.aggregates.is_empty() {
        let nothing = "this program has no aggregates; add them with App::new().aggregate::<..>()";
        return Err(Failure(nothing.to_owned()));
    }
    match command {
        Command::Check { lock, output } => check(app, &lock, output),
        Command::Write { lock } => write(app, &lock),
        Command::Show => print(&app.shapes.to_lock()).map(|()| Exit::Success),
    }
}

fn check(app: &App, lock: &LockFile, output: Output) -> Result<Exit, Failure> {
    let changes = changes(app.shapes.check(&lock.path))?;
    match output {
        Output::Json => print_json(&json!({
            "lock": lock.path.display().to_string(),
            "same": changes.is_empty(),
            "changes": changes.iter().map(document).collect::<Vec<_>>(),
        }))?,
        Output::Text if changes.is_empty() => {
            print(&format!("The stored shapes are those of {}.", lock.path.display()))?;
        }
        Output::Text => print(&text(lock, &changes)?)?,
    }
    Ok(if changes.is_empty() { Exit::Success } else { Exit::Findings })
}

fn write(app: &App, lock: &LockFile) -> Result<Exit, Failure> {
    let added = changes(app.shapes.check(&lock.path))?;
    let refused = changes(app.shapes.write(&lock.path))?;
    if !refused.is_empty() {
        print(&text(lock, &refused)?)?;
        return Ok(Exit::Findings);
    }
    let mut lines = String::new();
    for change in &added {
        if let ShapeChange::NotLocked { key } = change {
            writeln!(lines, "added [{key}]")?;
        }
    }
    let path = lock.path.display();
    if lines.is_empty() {
        writeln!(lines, "{path} was up to date.")?;
    } else {
        writeln!(lines, "{path} is up to date; commit it.")?;
    }
    print(&lines)?;
    Ok(Exit::Success)
}

/// What differs; other errors are about the file.
fn changes(outcome: Result<(), LockError>) -> Result<Vec<ShapeChange>, Failure> {
    match outcome {
        Ok(()) => Ok(Vec::new()),
        Err(LockError::Differs { changes, .. }) => Ok(changes),
        Err(error) => Err(error.into()),
    }
}

fn text(lock: &LockFile, changes: &[ShapeChange]) -> Result<String, Failure> {
    let mut text = String::new();
    writeln!(text, "The stored shapes differ from {}:", lock.path.display())?;
    for change in changes {
        writeln!(text, "  {change}")?;
    }
    if changes.iter().all(ShapeChange::is_addition) {
        writeln!(text, "To add what is new, run `shapes write`, and commit the file.")?;
    }
    Ok(text)
}

fn document(change: &ShapeChange) -> Value {
    let (kind, key): (_, Option<&ShapeKey>) = match change {
        ShapeChange::Changed { key, .. } => ("changed", Some(key)),
        ShapeChange::WentBack { key, .. } => ("went_back", Some(key)),
        ShapeChange::Removed { key } => ("removed", Some(key)),
        ShapeChange::CategoryRemoved { .. } => ("category_removed", None),
        ShapeChange::NotLocked { key } => ("not_locked", Some(key)),
        _ => ("other", None),
    };
    let category = match change {
        ShapeChange::CategoryRemoved { category } => Some(category),
        _ => key.map(|key| &key.category),
    };
    json!({
        "kind": kind,
        "category": category,
        "event_type": key.map(|key| &key.event_type),
        "version": key.map(|key| key.version),
        "message": change.to_string(),
    })
}
