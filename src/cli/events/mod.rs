//! `events`: the log, as it is and while it grows, and single events.

mod find;
mod record;
mod show;
mod tail;

use clap::Subcommand;

use super::{App, Exit, Failure};

/// Looks at recorded events
#[derive(Debug, Subcommand)]
pub(super) enum Command {
    Tail(tail::Arguments),
    Show(show::Arguments),
}

impl Command {
    /// True if it goes on until it is stopped.
    pub(super) fn is_endless(&self) -> bool {
        matches!(self, Self::Tail(arguments) if arguments.follow)
    }
}

pub(super) async fn run(app: &App, command: Command) -> Result<Exit, Failure> {
    match command {
        Command::Tail(arguments) => tail::run(app, arguments).await,
        Command::Show(arguments) => show::run(app, arguments).await,
    }
}
