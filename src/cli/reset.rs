//! `reset`: a read model is taken away, to be built anew.

use std::io::{IsTerminal, Write, stderr, stdin};

use clap::Args;
use serde_json::json;
use tokio::sync::oneshot;

use super::{
    App, Exit, Failure,
    database::Database,
    output::{Output, print, print_json},
    projection::known,
};

/// Drops a read model's tables, for a worker to build them anew
///
/// It is gone until a worker has come to the end of the log again. `rebuild` does the same while it is in
/// use. What is parked is forgotten and met again.
#[derive(Debug, Args)]
#[command(after_help = "Exit code: 0 if it was reset, 1 if it was not, 130 if it was stopped.")]
pub(super) struct Arguments {
    #[command(flatten)]
    database: Database,

    /// The read model: the name of its table
    projection: String,

    /// Does not ask
    #[arg(long)]
    yes: bool,

    /// How to print the outcome
    #[arg(long, value_enum, default_value_t)]
    output: Output,
}

pub(super) async fn run(app: &App, arguments: Arguments) -> Result<Exit, Failure> {
    let Arguments { database, projection, yes, output } = arguments;
    let known = known(app, &projection)?;
    let store = database.open(app).await?;
    if !yes {
        let schema = store.database()?.read_models().name().to_owned();
        confirm(&format!("{schema}.{projection}")).await?;
    }
    (known.reset)(store.clone()).await?;
    store.close().await;
    match output {
        Output::Text => print(&format!(
            "{projection} is reset; a worker builds it anew from the start of the log."
        ))?,
        Output::Json => print_json(&json!({ "projection": projection, "reset": true }))?,
    }
    Ok(Exit::Success)
}

/// Asks on a terminal.
async fn confirm(table: &str) -> Result<(), Failure> {
    let refused = |why: &str| Failure(format!("{table} stays as it is: {why}"));
    if !stdin().is_terminal() || !stderr().is_terminal() {
        return Err(refused("say --yes to drop it and its history"));
    }
    eprint!("Drop {table} and its history, to be built anew? Type yes: ");
    stderr().flush()?;
    let (sender, answer) = oneshot::channel();
    // Of its own, so that nobody waits for it when Ctrl-C is the answer.
    std::thread::spawn(move || {
        let mut line = String::new();
        let read = stdin().read_line(&mut line);
        // If nobody waits any more, it has been decided.
        let _ = sender.send(read.is_ok() && line.trim().eq_ignore_ascii_case("yes"));
    });
    match answer.await {
        Ok(true) => Ok(()),
        _ => Err(refused("the answer was not yes")),
    }
}
