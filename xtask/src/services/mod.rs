//! The private PostgreSQL and Kafka of this checkout.
//!
//! Everything that they write lives below the target directory (see [`layout`]), so that each
//! checkout has its own, on its own ports; downloads are shared by all of them (see [`cache`]).
//! Neither is ever an existing server of the machine, unless DATABASE_URL or KAFKA_BROKERS says so.

use std::env;
use std::fmt::Write as _;
use std::fs;

use anyhow::{Context, Result, anyhow};

use self::layout::Layout;
use self::state::State;

mod account;
mod cache;
mod daemon;
mod java;
mod kafka;
mod layout;
pub(crate) mod packages;
pub(crate) mod pooler;
mod ports;
mod postgres;
mod state;
mod temporary;

pub(crate) use self::kafka::programs as kafka_programs;
pub(crate) use self::postgres::{Major, parse_major};
pub(crate) use self::temporary::Temporary;

/// Where the services are, as the programs that use them want to hear it.
pub(crate) struct Running {
    /// A PostgreSQL connection URL.
    pub(crate) database_url: String,
    /// Bootstrap brokers, `host:port`; or why there are none.
    pub(crate) kafka_brokers: Result<String>,
}

/// Says on stderr what goes on: stdout belongs to what a command is asked to print.
fn say(service: &str, message: impl std::fmt::Display) {
    eprintln!("{service}: {message}");
}

/// A variable that names a service which is there already. Empty counts as not set.
fn external(variable: &str) -> Option<String> {
    env::var(variable).ok().filter(|value| !value.trim().is_empty())
}

/// Starts what is not running. A failure of Kafka leaves PostgreSQL up.
pub(crate) fn ensure() -> Result<Running> {
    let database_url = ensure_postgres()?;
    let kafka_brokers = match external("KAFKA_BROKERS") {
        Some(brokers) => Ok(brokers),
        None => with_state(kafka::up).context("cannot bring Kafka up"),
    };
    Ok(Running { database_url, kafka_brokers })
}

/// Starts PostgreSQL alone, unless it runs, and returns its connection URL.
fn ensure_postgres() -> Result<String> {
    match external("DATABASE_URL") {
        Some(url) => Ok(url),
        None => with_state(|layout, state| {
            postgres::up(layout, state, &postgres::Wanted::from_environment())
        })
        .context("cannot bring PostgreSQL up"),
    }
}

/// Does something with what is known of the services, while no other process does.
fn with_state<T>(act: impl FnOnce(&Layout, &mut State) -> Result<T>) -> Result<T> {
    let layout = Layout::discover()?;
    let _lock = layout.lock()?;
    let mut state = State::load(&layout.state_file());
    act(&layout, &mut state)
}

/// `services up`.
pub(crate) fn up() -> Result<()> {
    let running = ensure()?;
    report_up("postgres", "DATABASE_URL", &running.database_url);
    report_up("kafka", "KAFKA_BROKERS", &running.kafka_brokers?);
    Ok(())
}

fn report_up(service: &str, variable: &str, address: &str) {
    let address = without_password(address);
    match external(variable) {
        Some(_) => say(service, format_args!("using {address}, which {variable} names")),
        None => say(service, format_args!("up at {address}")),
    }
}

/// `services down`: stops both and keeps their data.
pub(crate) fn down() -> Result<()> {
    let layout = Layout::discover()?;
    let _lock = layout.lock()?;
    stop(&layout)
}

/// `services down --purge`: stops both and deletes their data.
pub(crate) fn purge() -> Result<()> {
    let layout = Layout::discover()?;
    let _lock = layout.lock()?;
    stop(&layout)?;
    // Those of temporary servers lie in the directory of all.
    for layout in temporary::layouts(&layout).chain([layout]) {
        delete(&layout)?;
    }
    Ok(())
}

/// Deletes what stopped services have written.
fn delete(layout: &Layout) -> Result<()> {
    let fallback = layout.fallback();
    // A directory there that is not ours is somebody else's: it is not ours to delete.
    let fallback_is_ours = fallback.exists() && layout.claim_fallback().is_ok();
    for dir in [Some(layout.dir()), fallback_is_ours.then_some(fallback.as_path())] {
        if let Some(dir) = dir.filter(|dir| dir.exists()) {
            fs::remove_dir_all(dir).with_context(|| {
                format!("cannot delete the services' data in {}", dir.display())
            })?;
            say("services", format_args!("deleted {}", dir.display()));
        }
    }
    Ok(())
}

fn stop(layout: &Layout) -> Result<()> {
    // One that refuses to stop must not keep the other running.
    let kafka = kafka::down(layout).context("cannot stop Kafka");
    postgres::down(layout).context("cannot stop PostgreSQL")?;
    // Of runs that were killed.
    for layout in temporary::layouts(layout) {
        postgres::down(&layout).context("cannot stop a PostgreSQL made for tests")?;
    }
    kafka
}

/// `services env`: the lines to `eval`, and nothing else, on stdout.
pub(crate) fn env() -> Result<()> {
    let layout = Layout::discover()?;
    let state = State::load(&layout.state_file());
    let found = [
        ("DATABASE_URL", external("DATABASE_URL").or_else(|| postgres::address(&layout, &state))),
        ("KAFKA_BROKERS", external("KAFKA_BROKERS").or_else(|| kafka::address(&layout, &state))),
    ];
    let mut lines = String::new();
    for (variable, value) in &found {
        let value = value.as_deref().ok_or_else(|| {
            let service = if *variable == "DATABASE_URL" { "PostgreSQL" } else { "Kafka" };
            anyhow!("{service} is not up, so there is no {variable}: run cargo xtask services up")
        });
        match value {
            Ok(value) => writeln!(lines, "export {variable}={}", shell_quoted(value))?,
            Err(error) => {
                // What is there is still worth having.
                print!("{lines}");
                return Err(error);
            }
        }
    }
    print!("{lines}");
    Ok(())
}

/// `services status`: a table on stdout.
pub(crate) fn status() -> Result<()> {
    let layout = Layout::discover()?;
    let state = State::load(&layout.state_file());
    let rows = [
        Row::external("postgres", "DATABASE_URL").unwrap_or_else(|| postgres::row(&layout, &state)),
        Row::external("kafka", "KAFKA_BROKERS").unwrap_or_else(|| kafka::row(&layout, &state)),
    ];
    print!("{}", table(&rows));
    Ok(())
}

/// A line of `services status`.
struct Row([String; 5]);

impl Row {
    const HEADINGS: [&str; 5] = ["SERVICE", "STATE", "ADDRESS", "PID", "DATA"];

    fn external(service: &str, variable: &str) -> Option<Self> {
        let address = without_password(&external(variable)?);
        let from = format!("(set by {variable})");
        Some(Self([service.into(), "external".into(), address, "-".into(), from]))
    }

    fn private(service: &str, health: &Health, address: Option<String>, data: String) -> Self {
        let (state, pid) = match health {
            Health::Stopped => ("stopped", "-".to_owned()),
            Health::Running(pid) => ("running", pid.to_string()),
            Health::Mute(pid) => ("not answering", pid.to_string()),
        };
        let address = address.unwrap_or_else(|| "-".into());
        Self([service.into(), state.into(), address, pid, data])
    }
}

/// How a private service is.
enum Health {
    Stopped,
    Running(daemon::ProcessId),
    /// The process is there, and does not answer.
    Mute(daemon::ProcessId),
}

fn table(rows: &[Row]) -> String {
    let lines = || {
        std::iter::once(Row::HEADINGS.map(String::from)).chain(rows.iter().map(|row| row.0.clone()))
    };
    let mut widths = [0; 5];
    for line in lines() {
        for (width, cell) in widths.iter_mut().zip(&line) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let mut text = String::new();
    for line in lines() {
        let cells: Vec<String> =
            line.iter().zip(widths).map(|(cell, width)| format!("{cell:width$}")).collect();
        text.push_str(cells.join("  ").trim_end());
        text.push('\n');
    }
    text
}

/// `value` as one word of a POSIX shell.
fn shell_quoted(value: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "_-./:@%+,=".contains(c);
    if value.chars().all(plain) {
        value.into()
    } else {
        format!("'{}'", value.replace('\'', r"'\''"))
    }
}

/// A connection URL, fit to be shown.
fn without_password(url: &str) -> String {
    let Some((scheme, rest)) = url.split_once("://") else {
        return url.into();
    };
    let Some((login, host)) = rest.rsplit_once('@') else {
        return url.into();
    };
    match login.split_once(':') {
        Some((user, _password)) => format!("{scheme}://{user}:***@{host}"),
        None => url.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_a_shell_would_mangle_is_quoted() {
        let ours = "postgres://annals@127.0.0.1:20001/annals";
        assert_eq!(shell_quoted(ours), ours);
        assert_eq!(shell_quoted("postgres://h/d?a=1&b=2"), "'postgres://h/d?a=1&b=2'");
        assert_eq!(shell_quoted("it's"), r"'it'\''s'");
    }

    #[test]
    fn a_password_is_not_shown() {
        assert_eq!(without_password("postgres://u:p@ss@h:1/d"), "postgres://u:***@h:1/d");
        assert_eq!(without_password("postgres://u@h/d"), "postgres://u@h/d");
        assert_eq!(without_password("h:9092,i:9092"), "h:9092,i:9092");
    }

    #[test]
    fn columns_of_the_status_table_line_up() {
        let row = |cells: [&str; 5]| Row(cells.map(String::from));
        let rows = [
            row(["postgres", "running", "127.0.0.1:1", "7", "/d"]),
            row(["kafka", "stopped", "-", "-", "/long"]),
        ];
        assert_eq!(
            table(&rows),
            "SERVICE   STATE    ADDRESS      PID  DATA\n\
             postgres  running  127.0.0.1:1  7    /d\n\
             kafka     stopped  -            -    /long\n"
        );
    }
}
