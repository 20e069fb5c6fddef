//! A private PostgreSQL: its own cluster, on its own port of the loopback interface.

use std::fs::{self, DirBuilder, OpenOptions};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::{DirBuilderExt, chown};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use rustix::process::Signal;

use self::binaries::Binaries;
use super::account::{self, Account};
use super::daemon::{Daemon, ProcessId, until};
use super::layout::Layout;
use super::state::{self, State};
use super::{Health, Row, ports, say};

mod binaries;
mod config;
mod orphans;
mod wire;

pub(crate) use self::binaries::{Major, Wanted, parse_major};

/// The superuser of the cluster, and the database made for it.
const NAME: &str = "annals";

/// Starts the server if it does not run; gives its URL.
pub(crate) fn up(layout: &Layout, state: &mut State, wanted: &Wanted) -> Result<String> {
    let daemon = daemon(layout);
    let running = daemon.find();
    if let Some(pid) = running {
        match &state.postgres {
            Some(known) if !wanted.is_met_by(known.from_maven.as_deref()) => {
                say("postgres", "another version than the running one is asked for");
            }
            // It may be starting still, if the run that started it was interrupted.
            Some(known) if until(Duration::from_secs(15), || wire::answers(known.port)) => {
                ensure_database(known.port)?;
                return Ok(url(known.port));
            }
            _ => say("postgres", format_args!("process {pid} does not answer, starting it anew")),
        }
    }
    let account = account::for_postgres()?;
    let binaries = Binaries::find(wanted, account.as_ref())?;
    // Only now is it sure that there is something to take its place.
    if let Some(pid) = running {
        stop(&daemon, pid)?;
    }
    orphans::end(&roots(layout))?;
    start(layout, state, &daemon, &binaries, account.as_ref())
}

fn start(
    layout: &Layout,
    state: &mut State,
    daemon: &Daemon,
    binaries: &Binaries,
    account: Option<&Account>,
) -> Result<String> {
    fs::create_dir_all(layout.postgres())
        .with_context(|| format!("cannot create {}", layout.postgres().display()))?;
    let cluster = root_for(layout, account)?.join(binaries.major.to_string());
    let data = cluster.join("data");
    if !data.exists() {
        create_cluster(&cluster, binaries, account)?;
    }
    let port = ports::choose(state.postgres.as_ref().map(|known| known.port), layout.id(), &[])?;
    let settings = cluster.join("annals.conf");
    fs::write(&settings, config::render(port, binaries.statements()))
        .with_context(|| format!("cannot write {}", settings.display()))?;
    // Saved before the start: an interrupted run leaves a server that the next one finds.
    state.postgres = Some(state::Postgres { port, from_maven: binaries.from_maven.clone() });
    state.save(&layout.state_file())?;

    say("postgres", format_args!("starting {} on {}", binaries.version, ports::loopback(port)));
    if orphans::can_be_found() {
        clear_pid_file(&data)?;
    }
    let mut command = binaries.command("postgres", account);
    command.arg("-D").arg(&data).current_dir(&cluster);
    let child = daemon.start(&mut command)?;
    daemon
        // A long recovery is worth waiting for.
        .wait_for_start(child, Duration::from_secs(120), || wire::answers(port))
        .inspect_err(|_| daemon.show_log())?;
    ensure_database(port)?;
    if binaries.statements() == config::Statements::Counted {
        show_statements(port);
    }
    Ok(url(port))
}

/// Stops the server if it runs.
pub(crate) fn down(layout: &Layout) -> Result<()> {
    let daemon = daemon(layout);
    if let Some(pid) = daemon.find() {
        stop(&daemon, pid)?;
        say("postgres", "stopped");
    }
    orphans::end(&roots(layout))
}

/// What `pg_ctl stop -m fast` does, and then what `-m immediate` does. Never SIGKILL: it would
/// leave the server's other processes behind, at work on the data.
fn stop(daemon: &Daemon, pid: ProcessId) -> Result<()> {
    let signals = [(Signal::INT, Duration::from_secs(30)), (Signal::QUIT, Duration::from_secs(10))];
    daemon.stop(pid, &signals)
}

/// The server's URL, if it answers.
pub(crate) fn address(layout: &Layout, state: &State) -> Option<String> {
    let known = state.postgres.as_ref()?;
    matches!(health(layout, state), Health::Running(_)).then(|| url(known.port))
}

/// The server's line of `services status`.
pub(crate) fn row(layout: &Layout, state: &State) -> Row {
    let health = health(layout, state);
    let running = match &health {
        Health::Running(pid) | Health::Mute(pid) => pid.arguments(),
        Health::Stopped => None,
    };
    let data = running.as_deref().and_then(data_of).map(PathBuf::from);
    let data = data.unwrap_or_else(|| layout.postgres());
    Row::private("postgres", &health, address(layout, state), data.display().to_string())
}

fn health(layout: &Layout, state: &State) -> Health {
    match (daemon(layout).find(), &state.postgres) {
        (Some(pid), Some(known)) if wire::answers(known.port) => Health::Running(pid),
        (Some(pid), _) => Health::Mute(pid),
        (None, _) => Health::Stopped,
    }
}

fn url(port: u16) -> String {
    format!("postgres://{NAME}@{}/{NAME}", ports::loopback(port))
}

/// Everything that holds clusters.
fn roots(layout: &Layout) -> [PathBuf; 2] {
    [layout.postgres(), layout.fallback()]
}

fn daemon(layout: &Layout) -> Daemon {
    let roots = roots(layout);
    Daemon {
        name: "postgres",
        log: layout.dir().join("postgres.log"),
        pid_file: layout.dir().join("postgres.pid"),
        is_ours: Box::new(move |arguments| {
            data_of(arguments).is_some_and(|data| roots.iter().any(|root| data.starts_with(root)))
        }),
    }
}

/// The data directory in the command line of a postmaster.
fn data_of(arguments: &[String]) -> Option<&Path> {
    let [program, options @ ..] = arguments else { return None };
    let data = options.windows(2).find(|pair| pair[0] == "-D").map(|pair| Path::new(&pair[1]));
    data.filter(|_| program.ends_with("postgres"))
}

/// Where the clusters are: in the target directory, if the account gets there.
fn root_for(layout: &Layout, account: Option<&Account>) -> Result<PathBuf> {
    let root = layout.postgres();
    if account.is_none_or(|account| account.reaches(&root)) {
        return Ok(root);
    }
    layout.claim_fallback()
}

/// Makes a cluster in `cluster`. It gets its name when it is complete, so that an interrupted run
/// leaves no half of one.
fn create_cluster(cluster: &Path, binaries: &Binaries, account: Option<&Account>) -> Result<()> {
    let cannot = || format!("cannot create the cluster in {}", cluster.display());
    let unfinished = cluster.join("data.unfinished");
    say("postgres", format_args!("creating a cluster in {}", cluster.display()));
    if unfinished.exists() {
        fs::remove_dir_all(&unfinished).with_context(cannot)?;
    }
    DirBuilder::new().recursive(true).mode(0o755).create(cluster).with_context(cannot)?;
    DirBuilder::new().mode(0o700).create(&unfinished).with_context(cannot)?;
    if let Some(account) = account {
        chown(&unfinished, Some(account.uid), Some(account.gid)).with_context(cannot)?;
    }
    let output = binaries
        .command("initdb", account)
        .args(["--username", NAME, "--auth", "trust", "--encoding", "UTF8", "--no-locale"])
        .arg("-D")
        .arg(&unfinished)
        .current_dir(cluster)
        .stdin(Stdio::null())
        .output()
        .with_context(cannot)?;
    let complaint = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "initdb failed: {}", complaint.trim().replace('\n', " "));
    // The last setting counts, so ours come last.
    OpenOptions::new()
        .append(true)
        .open(unfinished.join("postgresql.conf"))
        .and_then(|mut file| file.write_all(b"\ninclude '../annals.conf'\n"))
        .and_then(|()| fs::rename(&unfinished, cluster.join("data")))
        .with_context(cannot)
}

/// Clears away the file that a killed server leaves behind. It keeps PostgreSQL from starting if
/// its process number is somebody else's by now, or that of a dead process whose parent has not
/// noticed. Only to be called when it is certain that nothing works on the data.
fn clear_pid_file(data: &Path) -> Result<()> {
    let file = data.join("postmaster.pid");
    match fs::remove_file(&file) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        outcome => outcome.with_context(|| format!("cannot delete {}", file.display())),
    }
}

/// Creates the database, unless it is there.
fn ensure_database(port: u16) -> Result<()> {
    let Err(refusal) = wire::run(port, NAME, NAME, None) else {
        return Ok(());
    };
    if !refusal.is_missing_database() {
        return Err(refusal).with_context(|| format!("cannot connect to {}", url(port)));
    }
    wire::run(port, NAME, "postgres", Some(&format!("CREATE DATABASE {NAME}")))
        .with_context(|| format!("cannot create the database {NAME}"))
}

/// Makes the counts of statements visible, where the server has them. Only the benchmarks look at them,
/// and can do without.
fn show_statements(port: u16) {
    let extension = format!("CREATE EXTENSION IF NOT EXISTS {}", config::COUNTING);
    drop(wire::run(port, NAME, NAME, Some(&extension)));
}

/// A command that no setting of the environment leads astray (PGDATA, PGPORT, PGOPTIONS).
fn without_settings(mut command: Command) -> Command {
    for (variable, _) in std::env::vars_os() {
        if variable.to_str().is_some_and(|variable| variable.starts_with("PG")) {
            command.env_remove(variable);
        }
    }
    command
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_postmaster_is_known_by_its_command_line() {
        let of = |line: &str| line.split(' ').map(String::from).collect::<Vec<_>>();
        let postmaster = of("/usr/lib/postgresql/15/bin/postgres -D /t/postgres/15/data");
        assert_eq!(data_of(&postmaster), Some(Path::new("/t/postgres/15/data")));
        let by_hand = of("/bin/postgres -p 5433 -D /t/postgres/15/data -h localhost");
        assert_eq!(data_of(&by_hand), Some(Path::new("/t/postgres/15/data")));
        assert_eq!(data_of(&of("postgres: checkpointer")), None);
        assert_eq!(data_of(&of("less -D /t/postgres/15/data")), None);
    }
}
