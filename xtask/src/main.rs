//! The chores of this workspace: the services that tests and the demo need, the demo, the tests,
//! the benchmarks.
//!
//! `cargo xtask --help` lists them. What a command is asked to print goes to stdout, everything
//! that it says on the way to stderr; every failure is one line and exit code 1.

use std::ffi::OsString;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

mod bench;
mod cargo;
mod chaos;
mod demo;
mod proof;
mod services;
mod stress;
mod test;

/// Chores of the Annals workspace.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// The private PostgreSQL and Kafka of this checkout.
    ///
    /// DATABASE_URL and KAFKA_BROKERS, where set, are used instead of starting anything.
    /// ANNALS_POSTGRES_VERSION=18.6.0 takes the server binaries of that version from Maven
    /// Central instead of the machine's own.
    #[command(subcommand)]
    Services(Services),
    /// Bring the services up and run the loans example on its input, or another example.
    #[command(args_conflicts_with_subcommands = true)]
    Demo {
        #[command(subcommand)]
        example: Option<Example>,
        /// Arguments for the loans example.
        #[arg(last = true)]
        args: Vec<OsString>,
    },
    /// Bring the services up and let writers that stumble and die loose on a store, against readers
    /// that look all the time; the last line is the verdict of the checker of histories.
    Stress {
        /// What the run takes, such as `--seconds 60` or `--seed 7`; `--help` lists it.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        args: Vec<OsString>,
    },
    /// Bring the services up and let worker processes be killed and paused at random, under load and
    /// through rebuilds; the last line is the verdict on the rows and their history.
    Chaos {
        /// What the run takes, such as `--seconds 180` or `--seed 7`; `--help` lists it.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        args: Vec<OsString>,
    },
    /// Bring the services up and let publishers be killed, paused, cut off and left without brokers and
    /// database, under load; the last line is the verdict on what the topics hold.
    Proof {
        /// What the run takes, such as `--rounds 3`, `--seconds 60` or `--only network`; `--help` lists it.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        args: Vec<OsString>,
    },
    /// Bring the services up and run every test of the workspace against them.
    ///
    /// With --postgres, run the tests of the store and of the read side, without Kafka, on a server
    /// of that version. It is made for the run, beside the usual one, and stopped afterwards. Its
    /// binaries are the machine's own if they are of that version, else Maven Central's.
    Test {
        /// The major version of PostgreSQL to run the store's tests on.
        #[arg(long, value_name = "MAJOR", value_parser = services::parse_major)]
        postgres: Option<services::Major>,
        /// Arguments for `cargo test`, such as `-p annals-eventstore`.
        #[arg(last = true)]
        args: Vec<OsString>,
    },
    /// Bring PostgreSQL up and run Annals side by side with others.
    ///
    /// Prints a table and writes target/annals-bench.json. `--help` lists what there is.
    #[command(disable_help_flag = true)]
    Bench {
        /// --quick, names of benchmarks, and whatever else `--help` says.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        args: Vec<OsString>,
    },
}

#[derive(Subcommand)]
enum Example {
    /// Book trips at three services that fail, stall and repeat themselves, while each process is killed
    /// once; the last line is the verdict of the checker, which reads the four databases.
    Travel {
        /// What the run takes, such as `--quick` or `--rate 100`; `--help` lists it.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        args: Vec<OsString>,
    },
}

#[derive(Subcommand)]
enum Services {
    /// Start what is not running; what runs is left alone.
    Up,
    /// Stop both, and keep their data.
    Down {
        /// Delete their data too.
        #[arg(long)]
        purge: bool,
    },
    /// Print what runs, and where.
    Status,
    /// Print the variables to export: eval "$(cargo xtask services env)".
    Env,
}

fn main() -> ExitCode {
    let outcome = match Cli::parse().command {
        Command::Services(Services::Up) => services::up(),
        Command::Services(Services::Down { purge: false }) => services::down(),
        Command::Services(Services::Down { purge: true }) => services::purge(),
        Command::Services(Services::Status) => services::status(),
        Command::Services(Services::Env) => services::env(),
        Command::Chaos { args } => chaos::run(&args),
        Command::Demo { example: Some(Example::Travel { args }), .. } => demo::travel(&args),
        Command::Demo { example: None, args } => demo::loans(&args),
        Command::Bench { args } => bench::run(&args),
        Command::Proof { args } => proof::run(&args),
        Command::Stress { args } => stress::run(&args),
        Command::Test { postgres: None, args } => test::run(&args),
        Command::Test { postgres: Some(major), args } => test::run_on_postgres(major, &args),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_well_formed() {
        Cli::command().debug_assert();
    }

    #[test]
    fn what_follows_bench_is_the_benchmarks_own() {
        let line = ["xtask", "bench", "--quick", "execute_1", "--help"];
        let Ok(Cli { command: Command::Bench { args } }) = Cli::try_parse_from(line) else {
            panic!("not a bench command")
        };
        assert_eq!(args, ["--quick", "execute_1", "--help"]);
    }

    #[test]
    fn the_demo_is_of_loans_unless_it_is_of_travel() {
        let Ok(cli) = Cli::try_parse_from(["xtask", "demo", "--", "--rebuild"]) else {
            panic!("not a demo")
        };
        let Command::Demo { example: None, args } = cli.command else { panic!("not of loans") };
        assert_eq!(args, ["--rebuild"]);
        let Ok(cli) = Cli::try_parse_from(["xtask", "demo", "travel", "--quick"]) else {
            panic!("not a demo")
        };
        let Command::Demo { example: Some(Example::Travel { args }), .. } = cli.command else {
            panic!("not of travel")
        };
        assert_eq!(args, ["--quick"]);
    }

    #[test]
    fn a_second_double_dash_reaches_cargo_test() {
        let cli = Cli::try_parse_from(["xtask", "test", "--", "-p", "x", "--", "--nocapture"]);
        let Ok(Cli { command: Command::Test { postgres: None, args } }) = cli else {
            panic!("not a test command")
        };
        assert_eq!(args, ["-p", "x", "--", "--nocapture"]);
    }

    #[test]
    fn options_reach_the_stress_run() {
        let cli = Cli::try_parse_from(["xtask", "stress", "--seconds", "5", "--seed", "7"]);
        let Ok(Cli { command: Command::Stress { args } }) = cli else { panic!("not a stress run") };
        assert_eq!(args, ["--seconds", "5", "--seed", "7"]);
    }

    #[test]
    fn only_versions_that_we_support_are_tested_on() {
        let parse = |major| Cli::try_parse_from(["xtask", "test", "--postgres", major]);
        for major in ["15", "16", "17", "18"] {
            assert!(parse(major).is_ok(), "{major}");
        }
        for major in ["14", "18.1", "", "x"] {
            let Err(refusal) = parse(major) else { panic!("{major} is not refused") };
            assert!(refusal.to_string().contains("15, 16, 17 or 18"), "{refusal}");
        }
    }
}
