//! The command line.

use std::path::PathBuf;

use anyhow::Context;
use chrono::{DateTime, NaiveDate, NaiveTime, Utc};
use clap::{Parser, ValueEnum};

/// Records a bank's log of loan applications as events, and says where the applications stand, now
/// and as of other times.
#[derive(Clone, Debug, Parser)]
#[command(
    name = "loans",
    after_help = "Exit code: 0 if all went well, 2 if there were rows that cannot be read, 1 if it failed."
)]
pub(crate) struct Args {
    /// The log, as CSV or gzipped CSV. Without it, the example makes one of its own.
    #[arg(long, value_name = "FILE")]
    pub(crate) input: Option<PathBuf>,

    /// Says where the applications stood at this time, too: RFC 3339, or a date for its midnight
    /// in UTC. May be given several times.
    #[arg(long, value_name = "TIME", value_parser = time)]
    pub(crate) as_of: Vec<DateTime<Utc>>,

    /// Draws how many applications stood in each status over time, from as-of queries, as SVG.
    #[arg(long, value_name = "FILE.svg")]
    pub(crate) chart: Option<PathBuf>,

    /// How to print where things stand.
    #[arg(long, value_enum, default_value_t = Format::Text)]
    pub(crate) format: Format,

    /// Does not publish the events to Kafka.
    #[arg(long)]
    pub(crate) no_kafka: bool,

    /// Builds the read model anew while the import goes on, compares it with the one in use, and puts
    /// it into its place.
    #[arg(long)]
    pub(crate) rebuild: bool,

    /// Removes what earlier runs have recorded, and starts anew.
    #[arg(long)]
    pub(crate) reset: bool,

    /// Compares every application's row in the read model with the events of its stream, now and
    /// as of each time.
    #[arg(long)]
    pub(crate) verify: bool,

    /// Where PostgreSQL is: postgres://USER:PASSWORD@HOST:PORT/DATABASE.
    #[arg(long, value_name = "URL", env = "DATABASE_URL", hide_env_values = true)]
    pub(crate) database_url: Option<String>,

    /// Where Kafka is: HOST:PORT, several separated by commas.
    #[arg(long, value_name = "BROKERS", env = "KAFKA_BROKERS", hide_env_values = true)]
    pub(crate) kafka_brokers: Option<String>,

    /// What the names of the topics start with.
    #[arg(long, value_name = "NAME", default_value = "lending")]
    pub(crate) context: String,
}

/// How to print where things stand.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// A table.
    Text,
    /// One JSON document.
    Json,
}

impl Args {
    /// The brokers to publish to.
    pub(crate) fn brokers(&self) -> anyhow::Result<&str> {
        self.kafka_brokers.as_deref().filter(|brokers| !brokers.is_empty()).context(
            "KAFKA_BROKERS is not set; run `cargo xtask demo`, set it to a Kafka of yours, or say --no-kafka",
        )
    }

    /// Reads the command line; ends the program if it asks for help or cannot be understood.
    pub(crate) fn read() -> Self {
        Self::try_parse().unwrap_or_else(|error| {
            // There is nothing left to do if this cannot be printed.
            let _ = error.print();
            // Not clap's own code, 2, which says here that there were rows that cannot be read.
            std::process::exit(i32::from(error.use_stderr()))
        })
    }
}

/// A time in RFC 3339, or a date for its midnight in UTC; in microseconds, as PostgreSQL keeps it.
fn time(text: &str) -> Result<DateTime<Utc>, String> {
    let time = match DateTime::parse_from_rfc3339(text) {
        Ok(time) => Some(time.to_utc()),
        Err(_) => NaiveDate::parse_from_str(text, "%Y-%m-%d")
            .ok()
            .map(|date| date.and_time(NaiveTime::MIN).and_utc()),
    };
    time.and_then(|time| DateTime::from_timestamp_micros(time.timestamp_micros())).ok_or_else(
        || {
            "expected a time in RFC 3339 like 2011-12-31T23:59:59Z, or a date like 2011-12-31"
                .to_owned()
        },
    )
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    fn parse(args: &[&str]) -> Result<Args, String> {
        Args::try_parse_from([&["loans"], args].concat()).map_err(|error| error.to_string())
    }

    #[test]
    fn the_command_line_is_consistent() {
        Args::command().debug_assert();
    }

    #[test]
    fn everything_may_be_left_out() {
        let args = parse(&[]).unwrap();
        assert_eq!((args.input, args.as_of, args.format), (None, vec![], Format::Text));
        assert!(!args.no_kafka && !args.rebuild && !args.reset && !args.verify);
    }

    #[test]
    fn several_times_keep_their_order() {
        let args = parse(&[
            "--as-of",
            "2011-12-31T23:59:59Z",
            "--as-of=2011-11-30T01:30:00.5+01:00",
            "--as-of",
            "2012-02-01",
            "--format",
            "json",
        ])
        .unwrap();
        let times: Vec<_> = args.as_of.iter().map(ToString::to_string).collect();
        assert_eq!(
            times,
            ["2011-12-31 23:59:59 UTC", "2011-11-30 00:30:00.500 UTC", "2012-02-01 00:00:00 UTC"]
        );
        assert_eq!(args.format, Format::Json);
    }

    #[test]
    fn what_is_no_time_is_refused_with_advice() {
        for text in ["yesterday", "2011-13-01", "2011-12-31T23:59:59", "", "12:00", "2011-12-31 "] {
            let error = parse(&["--as-of", text]).unwrap_err();
            assert!(error.contains("--as-of"), "{error}");
            let advice = if text.is_empty() { "value" } else { "like 2011-12-31T23:59:59Z" };
            assert!(error.contains(advice), "{text}: {error}");
        }
    }

    #[test]
    fn times_are_cut_to_what_the_database_keeps() {
        let time = time("2011-12-31T23:59:59.123456789Z").unwrap();
        assert_eq!(time.to_string(), "2011-12-31 23:59:59.123456 UTC");
    }

    #[test]
    fn help_does_not_show_what_the_environment_holds() {
        let help = Args::command().render_long_help().to_string();
        assert!(help.contains("[env: DATABASE_URL]"), "{help}");
        assert!(help.contains("[env: KAFKA_BROKERS]"), "{help}");
    }
}
