//! The stress run of `tests/order/`, for as long as asked: `cargo xtask stress --seconds 60`.
//!
//! It needs a PostgreSQL server in `DATABASE_URL`, where it makes databases of its own and drops them
//! at the end. The last line is the verdict; the exit code is 1 if it is not SOUND. The history of a
//! run that is not sound is kept, and `--judge FOLDER` judges it again.
#![allow(clippy::unwrap_used, dead_code, reason = "it is a test, with a command line")]

#[path = "../tests/order/readers.rs"]
mod readers;
#[path = "../tests/order/stress.rs"]
mod stress;
#[path = "../tests/support/mod.rs"]
mod support;
#[path = "../tests/order/writers.rs"]
mod writers;

use std::{path::PathBuf, process::ExitCode, time::Duration};

use clap::Parser;
use readers::Reading;
use stress::{Run, judge, run};

/// Writers that stumble and die against readers that look all the time.
#[derive(Parser)]
struct Arguments {
    /// For how long writers write.
    #[arg(long, default_value_t = 60)]
    seconds: u64,
    /// What the random choices follow from; drawn if not given.
    #[arg(long)]
    seed: Option<u64>,
    /// Where to keep the history; an existing folder.
    #[arg(long, value_name = "FOLDER")]
    history: Option<PathBuf>,
    /// Only judge a history that was kept.
    #[arg(long, value_name = "FOLDER", conflicts_with_all = ["seconds", "seed", "history"])]
    judge: Option<PathBuf>,
}

#[tokio::main]
async fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let verdict = match arguments.judge {
        Some(folder) => {
            let verdict = judge(&folder);
            println!("{verdict}");
            verdict
        }
        None => {
            let folder = tempfile::tempdir().unwrap();
            let report = run(Run {
                seed: arguments.seed.unwrap_or_else(rand::random),
                reading: Reading::UpToSafePosition,
                length: Some(Duration::from_secs(arguments.seconds)),
                folder: arguments.history.unwrap_or_else(|| folder.path().to_owned()),
            })
            .await;
            if !report.verdict.is_sound() {
                eprintln!("the history is kept in {}", folder.keep().display());
            }
            report.assert_complete();
            println!("{report}");
            report.verdict
        }
    };
    ExitCode::from(u8::from(!verdict.is_sound()))
}
