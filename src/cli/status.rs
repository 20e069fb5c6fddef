//! `status`: how far projections are, and who runs them.

mod look;
mod show;

use std::{
    io::{IsTerminal, stdout},
    time::Duration,
};

use clap::Args;

use self::look::Rates;
use super::{
    App, Exit, Failure,
    database::Database,
    output::{Output, Reader, print_on},
};
use crate::EventStore;

/// How long a rate is measured, and how often a watch looks.
const INTERVAL: Duration = Duration::from_secs(1);
/// Takes a terminal back to its upper left corner, and empties it.
const CLEAR: &str = "\u{1b}[H\u{1b}[J";

/// Prints how far projections are, and other readers of the log
///
/// What they do, how far they are behind in events and in time, how fast they are, who runs them, and what is
/// parked. It takes a second, in which the rates are measured.
#[derive(Debug, Args)]
#[command(
    after_help = "Exit code: 0 if all is well; 2 if a projection is paused, has no worker, or has parked \
                  streams; 1 if it could not look; 130 if Ctrl-C stopped it: the only end with --watch."
)]
pub(super) struct Arguments {
    #[command(flatten)]
    database: Database,

    /// Looks every second until it is stopped
    #[arg(long)]
    pub(super) watch: bool,

    /// How to print it: as a table, or as a JSON document; with --watch, one on each line
    #[arg(long, value_enum, default_value_t)]
    output: Output,
}

pub(super) async fn run(app: &App, arguments: Arguments) -> Result<Exit, Failure> {
    let Arguments { database, watch, output } = arguments;
    let store = database.open(app).await?;
    let mut rates = Rates::default();
    rates.of(&look::look(app, &store).await?);
    let look = loop {
        tokio::time::sleep(INTERVAL).await;
        let look = match look::look(app, &store).await {
            Err(failure) if watch => {
                // It may be back at the next look.
                eprintln!("waiting for the database: {failure}");
                continue;
            }
            look => look?,
        };
        let per_second = rates.of(&look);
        let shown = match output {
            Output::Text => show::text(&look, &per_second)?,
            Output::Json if watch => show::document(&look, &per_second).to_string(),
            Output::Json => serde_json::to_string_pretty(&show::document(&look, &per_second))?,
        };
        let reader = match (output, watch) {
            (Output::Text, true) if stdout().is_terminal() => print_on(&format!("{CLEAR}{shown}"))?,
            (Output::Text, true) => print_on(&format!("{shown}\n\n"))?,
            _ => print_on(&shown)?,
        };
        if !watch || reader == Reader::Gone {
            break look;
        }
    };
    store.close().await;
    Ok(if look.is_well() { Exit::Success } else { Exit::Findings })
}
