//! A command line of the test's own, run in a process of its own: the test program itself, of which the test `tool`
//! is the tool.

use std::process::{Command, Output};

use annals::cli::App;

use super::{Database, admin::text};

const ARGS: &str = "ANNALS_TEST_TOOL";

/// What the test `tool` does: nothing, unless it is called by [`run`].
pub(crate) async fn be(app: App) {
    let Ok(args) = std::env::var(ARGS) else { return };
    let args = ["tool"].into_iter().chain(args.split(' '));
    std::process::exit(annals::cli::run_from(app, args).await.code().into());
}

pub(crate) fn run(database: &Database, args: &str) -> Output {
    let this = std::env::current_exe().unwrap();
    let harness = ["tool", "--exact", "--nocapture", "--test-threads=1"];
    let mut command = Command::new(this);
    command.args(harness).env(ARGS, args).env("DATABASE_URL", database.url());
    let mut output = command.output().unwrap();
    // What the harness says first.
    let head = "\nrunning 1 test\ntest tool ... ";
    assert!(text(&output.stdout).starts_with(head), "{}", text(&output.stdout));
    output.stdout.drain(..head.len());
    output
}
