//! The command line that looks after the store of the example `loans`: its read model (`status`, `rebuild`,
//! `history` and others), its log (`events`, `state`, `verify`), the lock file of its events (`shapes`), and the
//! contract of what it publishes (`contract`).

use std::process::ExitCode;

use annals::cli::App;

// A program of one's own has its aggregates and read models in a library that both binaries use.
#[path = "loans/contract.rs"]
mod contract;
#[allow(dead_code, reason = "the command line needs the aggregate only")]
#[path = "loans/model.rs"]
mod model;
#[allow(dead_code, reason = "the command line needs the read model only")]
#[path = "loans/read_model.rs"]
mod read_model;

#[tokio::main]
async fn main() -> ExitCode {
    let app = App::new()
        .aggregate::<model::LoanApplication>()
        .projection::<read_model::LoanApplications>()
        .contract(contract::contract());
    annals::cli::run(app).await
}
