//! `reset`: a read model or a projection in SQL is taken away, to be built anew.

use std::{
    io::{IsTerminal, Write, stderr, stdin},
    sync::Arc,
};

use clap::Args;
use serde_json::json;
use tokio::sync::oneshot;

use super::{
    App, Exit, Failure,
    database::Database,
    other::Reset,
    output::{Output, print, print_json},
    projection::{known, unknown},
};

/// Takes away a read model, or what a projection in SQL has made, for a worker to build it anew
///
/// It is gone until a worker has come to the end of the log again. `rebuild` does the same to a read model while it
/// is in use; a projection in SQL must have no worker. What is parked is forgotten and met again. Reactors and sagas
/// are refused: their effects would be had again.
#[derive(Debug, Args)]
#[command(after_help = "Exit code: 0 if it was reset, 1 if it was not, 130 if it was stopped.")]
pub(super) struct Arguments {
    #[command(flatten)]
    database: Database,

    /// The projection: the name of its table, or the one that it gives itself
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
    let (reset, made) = match app.other(&projection) {
        Some(other) => (other.reset()?, "what it has made"),
        None if app.others.is_empty() || app.has_read_model(&projection) => {
            (Arc::new(known(app, &projection)?.reset) as Reset, "its history")
        }
        None => return Err(unknown(app, &projection)),
    };
    let store = database.open(app).await?;
    if !yes {
        let schema = store.database()?.read_models().name().to_owned();
        confirm(&format!("{schema}.{projection}"), &format!("drop it and {made}")).await?;
    }
    reset(store.clone()).await?;
    store.close().await;
    match output {
        Output::Text => print(&format!(
            "{projection} is reset; a worker builds it anew from the start of the log."
        ))?,
        Output::Json => print_json(&json!({ "projection": projection, "reset": true }))?,
    }
    Ok(Exit::Success)
}

/// Asks on a terminal whether this is to be done to it.
pub(super) async fn confirm(what: &str, wanted: &str) -> Result<(), Failure> {
    let refused = |why: &str| Failure(format!("{what} stays as it is: {why}"));
    if !stdin().is_terminal() || !stderr().is_terminal() {
        return Err(refused(&format!("say --yes to {wanted}")));
    }
    eprint!("{what}: {wanted}? Type yes: ");
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
