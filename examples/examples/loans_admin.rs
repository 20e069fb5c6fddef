//! The command line that looks after the store of the example `loans`: `verify`, `events`, `state`, and `shapes` for
//! the lock file of its events.

use std::process::ExitCode;

use annals::cli::App;

// A program of one's own has its aggregates in a library that both binaries use.
#[allow(dead_code, reason = "the command line needs the aggregate only")]
#[path = "loans/model.rs"]
mod model;

#[tokio::main]
async fn main() -> ExitCode {
    annals::cli::run(App::new().aggregate::<model::LoanApplication>()).await
}
