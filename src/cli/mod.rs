//! A command line for the people who run a store, to mount in a program of your own.
//!
//! Only your program knows your aggregates and read models, so the tool is a part of it: three lines, in a
//! binary beside the others.
//!
//! ```no_run
//! # use annals::{Aggregate, Apply, Change, Event, Project, ReadModel, Recorded};
//! # use serde::{Deserialize, Serialize};
//! # #[derive(Event, Serialize, Deserialize)]
//! # enum LoanEvent { Submitted { amount: i64 } }
//! # #[derive(Aggregate, Default)]
//! # #[aggregate(category = "loan", event = LoanEvent)]
//! # struct Loan;
//! # impl Apply<LoanEvent> for Loan { fn apply(&mut self, _: &LoanEvent) {} }
//! # #[derive(ReadModel, Clone)]
//! # #[read_model(table = "loan_overview", from(Loan), history)]
//! # struct LoanOverview { #[read_model(key)] loan: String }
//! # impl Project<LoanEvent> for LoanOverview {
//! #     fn project(row: Option<Self>, _: &Recorded<LoanEvent>) -> Change<Self> { Change::Keep }
//! # }
//! use annals::cli::App;
//!
//! #[tokio::main]
//! async fn main() -> std::process::ExitCode {
//!     annals::cli::run(App::new().aggregate::<Loan>().projection::<LoanOverview>()).await
//! }
//! ```
//!
//! `App::sql`, `App::reactor` and `App::saga` add what else the program's workers run.
//!
//! `status` says how far projections are. `rebuild` builds a read model anew beside the one in use, `replay` one as it was, `pause`,
//! `resume`, `reset` and `parked` look after one that runs, `sagas` after sagas. `history` prints all that a row ever was,
//! `forget-history` deletes that before a moment, `diff` prints what differs between two moments, `ddl` the SQL of a read model. `events tail` prints the last events and
//! follows the log, `events show` one event whole, `state` what the events of a stream add up to, now or at a
//! moment of the past. `verify` says whether a store is consistent, `shapes` whether the stored shapes of
//! events are still those of the lock file. With the feature `contracts`, `contract` prints, writes and checks
//! the contract of the events that are published; with the feature `kafka`, `kafka verify` says whether the topics
//! hold what the store holds. Each command's `--help` has the rest, [`Exit`] the exit codes.

// A command is a file: its arguments, its run, and what it prints.
#[cfg(feature = "contracts")]
mod contract;
mod ddl;
mod diff;
mod events;
mod forget;
mod history;
#[cfg(feature = "kafka")]
mod kafka;
mod parked;
mod pause;
mod rebuild;
mod replay;
mod reset;
mod sagas;
mod shapes;
mod state;
mod status;
mod verify;

mod aggregate;
mod app;
mod database;
mod exit;
mod json;
mod other;
mod output;
mod projection;
mod rows;
mod time;

use std::{ffi::OsString, process::ExitCode};

use clap::{Parser, Subcommand};

pub use self::{app::App, exit::Exit};

/// Looks after a store of events.
#[derive(Debug, Parser)]
#[command(
    name = "annals",
    arg_required_else_help = true,
    after_help = "Exit code: 0 if all is well, 1 if the command could not run, 2 if it found something \
                  wrong, 130 if it was stopped."
)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Status(status::Arguments),
    Rebuild(rebuild::Arguments),
    Replay(replay::Arguments),
    Pause(pause::Pause),
    Resume(pause::Resume),
    Reset(reset::Arguments),
    #[command(subcommand)]
    Parked(parked::Command),
    #[command(subcommand)]
    Sagas(sagas::Command),
    History(history::Arguments),
    ForgetHistory(forget::Arguments),
    Diff(diff::Arguments),
    Ddl(ddl::Arguments),
    #[command(subcommand)]
    Events(events::Command),
    State(state::Arguments),
    Verify(verify::Arguments),
    #[command(subcommand)]
    Shapes(shapes::Command),
    #[cfg(feature = "contracts")]
    #[command(subcommand)]
    Contract(contract::Command),
    #[cfg(feature = "kafka")]
    #[command(subcommand)]
    Kafka(kafka::Command),
}

impl Command {
    /// What there is to say when Ctrl-C stops it.
    fn when_stopped(&self) -> Option<&'static str> {
        match self {
            // What has no other end has come to it.
            Self::Events(events) if events.is_endless() => None,
            Self::Status(status) if status.watch => None,
            Self::Pause(_) | Self::Resume(_) | Self::Reset(_) => Some(UNKNOWN),
            Self::Replay(_) => {
                Some("stopped; the same command goes on with it, --discard drops it")
            }
            Self::ForgetHistory(_) => Some("stopped; the same command forgets the rest"),
            Self::Parked(parked) if parked.changes() => Some(UNKNOWN),
            Self::Sagas(sagas) if sagas.changes() => Some(UNKNOWN),
            _ => Some("stopped; nothing was changed"),
        }
    }
}

const UNKNOWN: &str = "stopped; whether it was done is not known: see `status`";

/// Runs the command that the program was called with.
///
/// It prints to stdout what was asked for and to stderr what went wrong, in one line. Ctrl-C stops it.
pub async fn run(app: App) -> ExitCode {
    run_from(app, std::env::args_os()).await.into()
}

/// The same with arguments of the caller's, the first of which is the name of the program. Where your
/// program has a command line of its own, hand a part of it on.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() {
/// use annals::cli::{App, Exit, run_from};
///
/// // No aggregate has shapes to show.
/// assert_eq!(run_from(App::new(), ["tool", "shapes", "show"]).await, Exit::Failed);
/// # }
/// ```
pub async fn run_from(
    app: App,
    arguments: impl IntoIterator<Item = impl Into<OsString> + Clone>,
) -> Exit {
    let arguments = match Arguments::try_parse_from(arguments) {
        Ok(arguments) => arguments,
        Err(error) => {
            // There is nothing left to do if this cannot be printed.
            let _ = error.print();
            return if error.use_stderr() { Exit::Failed } else { Exit::Success };
        }
    };
    let when_stopped = arguments.command.when_stopped();
    // It depends on how far it is.
    let stops_itself = matches!(arguments.command, Command::Rebuild(_));
    let running = async {
        match arguments.command {
            Command::Status(arguments) => status::run(&app, arguments).await,
            Command::Rebuild(arguments) => rebuild::run(&app, arguments).await,
            Command::Replay(arguments) => replay::run(&app, arguments).await,
            Command::Pause(arguments) => pause::pause(&app, arguments).await,
            Command::Resume(arguments) => pause::resume(&app, arguments).await,
            Command::Reset(arguments) => reset::run(&app, arguments).await,
            Command::Parked(command) => parked::run(&app, command).await,
            Command::Sagas(command) => sagas::run(&app, command).await,
            Command::History(arguments) => history::run(&app, arguments).await,
            Command::ForgetHistory(arguments) => forget::run(&app, arguments).await,
            Command::Diff(arguments) => diff::run(&app, arguments).await,
            Command::Ddl(arguments) => ddl::run(&app, arguments),
            Command::Events(command) => events::run(&app, command).await,
            Command::State(arguments) => state::run(&app, arguments).await,
            Command::Verify(arguments) => verify::run(&app, arguments).await,
            Command::Shapes(command) => shapes::run(&app, command),
            #[cfg(feature = "contracts")]
            Command::Contract(command) => contract::run(&app, command),
            #[cfg(feature = "kafka")]
            Command::Kafka(command) => kafka::run(&app, command).await,
        }
    };
    let outcome = tokio::select! {
        outcome = running => outcome,
        Ok(()) = tokio::signal::ctrl_c(), if !stops_itself => {
            if let Some(words) = when_stopped {
                eprintln!("{words}");
            }
            return Exit::Interrupted;
        }
    };
    outcome.unwrap_or_else(|failure| {
        eprintln!("error: {failure}");
        Exit::Failed
    })
}

/// Why a command could not run, in one line.
#[derive(Debug)]
struct Failure(String);

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl<E: std::error::Error> From<E> for Failure {
    fn from(error: E) -> Self {
        let mut line = error.to_string();
        let mut source = error.source();
        while let Some(cause) = source {
            let cause_line = cause.to_string();
            // Some errors say their cause themselves.
            if !line.ends_with(&cause_line) {
                line.push_str(": ");
                line.push_str(&cause_line);
            }
            source = cause.source();
        }
        Self(line.replace('\n', " "))
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Arguments::command().debug_assert();
    }

    #[tokio::test]
    async fn help_is_a_success_and_nonsense_a_failure() {
        for help in
            [&["tool", "--help"][..], &["tool", "help", "verify"], &["tool", "parked", "--help"]]
        {
            assert_eq!(run_from(App::new(), help).await, Exit::Success, "{help:?}");
        }
        // Not clap's own code, 2, which says here that something is wrong with the store.
        for nonsense in [&["tool"][..], &["tool", "wash"], &["tool", "verify", "--output", "xml"]] {
            assert_eq!(run_from(App::new(), nonsense).await, Exit::Failed, "{nonsense:?}");
        }
    }

    #[test]
    fn a_failure_is_one_line_with_its_causes() {
        #[derive(Debug, thiserror::Error)]
        #[error("outer\nend")]
        struct Outer(#[source] std::io::Error);
        let failure = Failure::from(Outer(std::io::Error::other("inner")));
        assert_eq!(failure.to_string(), "outer end: inner");
    }
}
