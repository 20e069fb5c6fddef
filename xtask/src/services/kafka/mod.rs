//! A private Apache Kafka: one node that is broker and controller, from Maven Central.

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use rustix::process::Signal;

use super::daemon::{Daemon, ProcessId, until};
use super::layout::Layout;
use super::state::{self, State};
use super::{Health, Row, cache, java, ports, say};

mod config;
mod protocol;

const VERSION: &str = "4.3.1";

/// The heap and collector that a broker for tests can do with.
const JVM: [&str; 2] = ["-Xmx512m", "-XX:+UseSerialGC"];

/// Starts the broker if it does not run; gives its address.
pub(crate) fn up(layout: &Layout, state: &mut State) -> Result<String> {
    let files = Files::of(layout);
    let daemon = files.daemon();
    if let Some(pid) = daemon.find() {
        // It may be starting still, if the run that started it was interrupted.
        let patience = Duration::from_secs(15);
        if let Some(known) = state.kafka
            && until(patience, || protocol::has_a_broker(known.port))
        {
            return Ok(address_of(known.port));
        }
        say("kafka", format_args!("process {pid} does not answer, starting it anew"));
        stop(&daemon, pid)?;
    }
    let java = java::java()?;
    let libraries = libraries()?;
    start(layout, state, &files, &daemon, &Kafka { java, libraries })
}

fn start(
    layout: &Layout,
    state: &mut State,
    files: &Files,
    daemon: &Daemon,
    kafka: &Kafka,
) -> Result<String> {
    let cannot = || format!("cannot write to {}", files.dir.display());
    fs::create_dir_all(&files.dir).with_context(cannot)?;
    let known = state.kafka;
    // Half the range away from PostgreSQL's, which starts its search at the same seed.
    let seed = layout.id().wrapping_add(6_000);
    let port = ports::choose(known.map(|kafka| kafka.port), seed, &[])?;
    let controller_port = ports::choose(known.map(|kafka| kafka.controller_port), seed, &[port])?;
    // Saved before the start: an interrupted run leaves a broker that the next one finds.
    state.kafka = Some(state::Kafka { port, controller_port });
    state.save(&layout.state_file())?;
    fs::write(&files.config, config::render(port, controller_port, &files.data))
        .with_context(cannot)?;
    if !files.formatted.exists() {
        kafka.format(files)?;
    }
    say("kafka", format_args!("starting Apache Kafka {VERSION} on {}", address_of(port)));
    let mut command = kafka.command("kafka.Kafka");
    command.arg(&files.config).current_dir(&files.dir);
    let child = daemon.start(&mut command)?;
    daemon
        .wait_for_start(child, Duration::from_secs(60), || protocol::has_a_broker(port))
        .inspect_err(|_| daemon.show_log())?;
    Ok(address_of(port))
}

/// The variables that tell tests what to start brokers of their own with.
pub(crate) fn programs() -> Result<[(&'static str, PathBuf); 2]> {
    Ok([("ANNALS_JAVA", java::java()?), ("ANNALS_KAFKA_LIBRARIES", libraries()?)])
}

/// Stops the broker if it runs.
pub(crate) fn down(layout: &Layout) -> Result<()> {
    let daemon = Files::of(layout).daemon();
    let Some(pid) = daemon.find() else {
        return Ok(());
    };
    stop(&daemon, pid)?;
    say("kafka", "stopped");
    Ok(())
}

fn stop(daemon: &Daemon, pid: ProcessId) -> Result<()> {
    let patience = Duration::from_secs(10);
    daemon.stop(pid, &[(Signal::TERM, patience), (Signal::KILL, patience)])
}

/// The broker's address, if it answers.
pub(crate) fn address(layout: &Layout, state: &State) -> Option<String> {
    let known = state.kafka?;
    matches!(health(layout, state), Health::Running(_)).then(|| address_of(known.port))
}

/// The broker's line of `services status`.
pub(crate) fn row(layout: &Layout, state: &State) -> Row {
    let health = health(layout, state);
    let data = Files::of(layout).data.display().to_string();
    Row::private("kafka", &health, address(layout, state), data)
}

fn health(layout: &Layout, state: &State) -> Health {
    let found = Files::of(layout).daemon().find();
    match (found, state.kafka) {
        (Some(pid), Some(known)) if protocol::has_a_broker(known.port) => Health::Running(pid),
        (Some(pid), _) => Health::Mute(pid),
        (None, _) => Health::Stopped,
    }
}

fn address_of(port: u16) -> String {
    ports::loopback(port).to_string()
}

struct Files {
    dir: PathBuf,
    config: PathBuf,
    data: PathBuf,
    /// Present if `data` was formatted to the end.
    formatted: PathBuf,
}

impl Files {
    fn of(layout: &Layout) -> Self {
        let dir = layout.kafka();
        Self {
            config: dir.join("server.properties"),
            data: dir.join("data"),
            formatted: dir.join("formatted"),
            dir,
        }
    }

    fn daemon(&self) -> Daemon {
        let config = self.config.to_string_lossy().into_owned();
        Daemon {
            name: "kafka",
            log: self.dir.join("kafka.log"),
            pid_file: self.dir.join("kafka.pid"),
            is_ours: Box::new(
                move |arguments| matches!(arguments, [.., class, file] if class == "kafka.Kafka" && *file == config),
            ),
        }
    }
}

/// A Java and the broker's jar files.
struct Kafka {
    java: PathBuf,
    libraries: PathBuf,
}

impl Kafka {
    fn command(&self, class: &str) -> Command {
        let mut command = Command::new(&self.java);
        command.args(JVM).arg("-Dorg.slf4j.simpleLogger.showDateTime=true");
        command.args(["-Dorg.slf4j.simpleLogger.dateTimeFormat=yyyy-MM-dd HH:mm:ss.SSS", "-cp"]);
        command.arg(self.libraries.join("*")).arg(class).stdin(Stdio::null());
        command
    }

    /// Gives the data directory its identity.
    fn format(&self, files: &Files) -> Result<()> {
        say("kafka", format_args!("formatting {}", files.data.display()));
        if files.data.exists() {
            // What an interrupted formatting left behind.
            fs::remove_dir_all(&files.data)
                .with_context(|| format!("cannot delete {}", files.data.display()))?;
        }
        let cluster = self.storage_tool(&["random-uuid".as_ref()])?;
        let config = files.config.as_os_str();
        let id = OsStr::new(cluster.trim());
        self.storage_tool(&["format".as_ref(), "-t".as_ref(), id, "-c".as_ref(), config])?;
        fs::write(&files.formatted, cluster)
            .with_context(|| format!("cannot write {}", files.formatted.display()))
    }

    fn storage_tool(&self, arguments: &[&OsStr]) -> Result<String> {
        let output = self
            .command("kafka.tools.StorageTool")
            .args(arguments)
            .output()
            .with_context(|| format!("cannot start {}", self.java.display()))?;
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        let complaint = String::from_utf8_lossy(&output.stderr);
        let complaint = complaint.lines().last().unwrap_or_default();
        ensure!(
            output.status.success(),
            "Kafka's storage tool failed: {complaint} (if {} is damaged, delete it)",
            self.libraries.display()
        );
        Ok(said)
    }
}

/// The directory with the broker's jar files.
fn libraries() -> Result<PathBuf> {
    cache::directory(&format!("kafka-{VERSION}"), None, |dir| {
        say("kafka", format_args!("downloading Apache Kafka {VERSION} from Maven Central (44 MB)"));
        let pom = dir.join("pom.xml");
        fs::write(&pom, config::render_pom(VERSION))
            .with_context(|| format!("cannot write {}", pom.display()))?;
        download(dir)?;
        fs::remove_file(&pom).with_context(|| format!("cannot delete {}", pom.display()))
    })
}

fn download(dir: &Path) -> Result<()> {
    let mut output = std::ffi::OsString::from("-DoutputDirectory=");
    output.push(dir);
    java::maven(dir, "copy-dependencies", &["-DincludeScope=runtime".as_ref(), &output])
}
