//! The command line.

use std::{net::SocketAddr, path::PathBuf};

use clap::{Args, Parser, Subcommand};
use reqwest::Url;

use crate::{clients::Clients, databases::BOOKING, faults::Faults, kind::Kind};

/// Bookings of trips: a flight, a hotel and a car, each reserved by a service of its own, or none of them.
#[derive(Debug, Parser)]
#[command(
    name = "travel",
    after_help = "Exit code of `run` and `check`: 0 if all bookings are booked or fully compensated, else 1."
)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Serves reservations of flights.
    Flight(ServiceArgs),
    /// Serves reservations of hotel rooms.
    Hotel(ServiceArgs),
    /// Serves reservations of cars.
    Car(ServiceArgs),
    /// Serves bookings, and has the three services reserve what they need.
    Booking(Box<BookingArgs>),
    /// Sends bookings to a booking service.
    Load(LoadArgs),
    /// Reads the four databases, and says whether every booking is booked or fully compensated.
    Check(CheckArgs),
    /// All of it: starts the processes on databases of their own, sends bookings, kills each process once, waits
    /// until all bookings have ended, and checks them.
    Run(RunArgs),
}

impl Command {
    /// What a process with this command is, for whoever sees what it traces.
    pub(crate) fn role(&self) -> &'static str {
        match self {
            Self::Flight(_) => Kind::Flight.name(),
            Self::Hotel(_) => Kind::Hotel.name(),
            Self::Car(_) => Kind::Car.name(),
            Self::Booking(_) => BOOKING,
            Self::Load(_) => "load",
            Self::Check(_) => "check",
            Self::Run(_) => "run",
        }
    }
}

#[derive(Debug, Args)]
pub(crate) struct ServeArgs {
    /// Where to listen.
    #[arg(long, value_name = "ADDRESS")]
    pub(crate) listen: SocketAddr,
    /// Ends when stdin does: with the process that holds its other end, however that ends.
    #[arg(long)]
    pub(crate) attached: bool,
    /// The database of this service.
    #[arg(long, value_name = "URL", env = "DATABASE_URL", hide_env_values = true)]
    pub(crate) database_url: String,
}

#[derive(Debug, Args)]
pub(crate) struct ServiceArgs {
    #[command(flatten)]
    pub(crate) serve: ServeArgs,
    #[command(flatten)]
    pub(crate) faults: Faults,
}

#[derive(Debug, Args)]
pub(crate) struct BookingArgs {
    #[command(flatten)]
    pub(crate) serve: ServeArgs,
    /// Where flights are reserved.
    #[arg(long, value_name = "URL")]
    pub(crate) flight: Url,
    /// Where hotel rooms are reserved.
    #[arg(long, value_name = "URL")]
    pub(crate) hotel: Url,
    /// Where cars are reserved.
    #[arg(long, value_name = "URL")]
    pub(crate) car: Url,
    /// Who may book: NAME=KEY of each shop, with commas between. A shop sends its key as x-api-key.
    #[arg(long, env = "TRAVEL_CLIENTS", hide_env_values = true)]
    pub(crate) clients: Clients,
    /// How many requests a second one shop may send, and twice as many at once after a pause.
    #[arg(long, value_name = "REQUESTS", default_value_t = 400, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) rate_limit: u32,
}

/// How many bookings are sent, and how fast.
#[derive(Clone, Copy, Debug, Args)]
pub(crate) struct Pace {
    /// How many bookings to send a second.
    #[arg(long, value_name = "BOOKINGS", default_value_t = 200, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) rate: u32,
    /// For how many seconds.
    #[arg(long, default_value_t = 60, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) seconds: u32,
}

#[derive(Debug, Args)]
pub(crate) struct LoadArgs {
    /// Where bookings are made; once for each process of the booking service.
    #[arg(long, value_name = "URL", required = true)]
    pub(crate) gateway: Vec<Url>,
    /// The key of the shop that sends them.
    #[arg(long, env = "TRAVEL_KEY", hide_env_values = true)]
    pub(crate) key: String,
    #[command(flatten)]
    pub(crate) pace: Pace,
    /// Where to write the ids of the bookings that were accepted, one a line, for `check`.
    #[arg(long, value_name = "FILE")]
    pub(crate) accepted: Option<PathBuf>,
}

/// Where the four databases are.
#[derive(Clone, Debug, Args)]
pub(crate) struct DatabaseArgs {
    /// The server: postgres://USER:PASSWORD@HOST:PORT/DATABASE, with any database of it.
    #[arg(long, value_name = "URL", env = "DATABASE_URL", hide_env_values = true)]
    pub(crate) database_url: Url,
    /// What the names of the databases begin with: PREFIX_booking, PREFIX_flight and so on.
    #[arg(long, value_name = "PREFIX", value_parser = prefix)]
    pub(crate) databases: Option<String>,
}

#[derive(Debug, Args)]
pub(crate) struct CheckArgs {
    #[command(flatten)]
    pub(crate) databases: DatabaseArgs,
    /// The ids of the bookings that were accepted, one a line: none of them may be lost.
    #[arg(long, value_name = "FILE")]
    pub(crate) accepted: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(crate) struct RunArgs {
    #[command(flatten)]
    pub(crate) databases: DatabaseArgs,
    #[command(flatten)]
    pub(crate) pace: Pace,
    /// A short run: bookings for 20 seconds, unless --seconds says otherwise.
    #[arg(long, conflicts_with = "seconds")]
    pub(crate) quick: bool,
    /// Keeps the databases. They are also kept if something is wrong with them.
    #[arg(long)]
    pub(crate) keep: bool,
}

impl RunArgs {
    pub(crate) fn pace(&self) -> Pace {
        if self.quick { Pace { seconds: 20, ..self.pace } } else { self.pace }
    }
}

/// A name that needs no quotes in SQL, with room for what is put behind it.
fn prefix(text: &str) -> Result<String, String> {
    let is_name =
        |character: char| character.is_ascii_lowercase() || "_0123456789".contains(character);
    let begins = text.starts_with(|character: char| character.is_ascii_lowercase());
    if begins && text.len() <= 50 && text.chars().all(is_name) {
        Ok(text.to_owned())
    } else {
        Err("expected lower-case letters, digits and underscores, 50 at most".to_owned())
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_well_formed() {
        Cli::command().debug_assert();
    }

    #[test]
    fn a_quick_run_is_short() {
        let run = |args: &[&str]| {
            let line = ["travel", "run", "--database-url", "postgres://localhost/a"];
            let cli = Cli::try_parse_from(line.iter().chain(args)).unwrap();
            let Command::Run(run) = cli.command else { panic!("not a run") };
            run.pace()
        };
        assert_eq!((run(&[]).rate, run(&[]).seconds), (200, 60));
        assert_eq!(run(&["--quick"]).seconds, 20);
        assert_eq!(run(&["--seconds", "5"]).seconds, 5);
    }

    #[test]
    fn names_of_databases_cannot_be_sql() {
        assert!(prefix("travel_7").is_ok());
        for text in ["", "7", "Travel", "a b", "a;drop", "ä", &"a".repeat(51)] {
            assert!(prefix(text).is_err(), "{text}");
        }
    }
}
