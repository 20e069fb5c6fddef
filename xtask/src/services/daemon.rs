//! Processes that outlive the command that starts them.

use std::fmt;
use std::fs::{self, File};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process};

/// How often to look whether something has come about.
const POLL: Duration = Duration::from_millis(50);

/// The number of a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ProcessId(Pid);

impl fmt::Display for ProcessId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.as_raw_nonzero().fmt(f)
    }
}

impl ProcessId {
    /// Reads a number from the first line of a pid file, or from a name in /proc.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        text.lines().next()?.trim().parse().ok().and_then(Pid::from_raw).map(Self)
    }

    /// The processes of this machine, as far as it tells.
    pub(crate) fn all() -> impl Iterator<Item = Self> {
        let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
        entries.filter_map(|entry| Self::parse(entry.file_name().to_str()?))
    }

    /// Sends a signal to a process that may have ended.
    pub(crate) fn send(self, signal: Signal) {
        // What comes of it shows in whether the process ends.
        let _ = kill_process(self.0, signal);
    }

    /// The command line; none if there is no such process or it has ended and nobody has noticed.
    pub(crate) fn arguments(self) -> Option<Vec<String>> {
        let arguments: Vec<String> = if Path::new("/proc/self").exists() {
            let line = fs::read(format!("/proc/{self}/cmdline")).ok()?;
            let line = line.strip_suffix(b"\0").unwrap_or(&line);
            line.split(|byte| *byte == 0).map(|a| String::from_utf8_lossy(a).into_owned()).collect()
        } else {
            let listed = Command::new("ps")
                .args(["-ww", "-o", "args=", "-p", &self.to_string()])
                .output()
                .ok()?;
            String::from_utf8_lossy(&listed.stdout).split_whitespace().map(String::from).collect()
        };
        arguments.first().is_some_and(|first| !first.is_empty()).then_some(arguments)
    }
}

/// Whether a command line is that of a certain service.
pub(crate) type IsOurs = Box<dyn Fn(&[String]) -> bool>;

/// A service that runs in the background, and how to recognise it.
pub(crate) struct Daemon {
    /// What it is called in messages.
    pub(crate) name: &'static str,
    /// Its output of this run; that of the run before has `.old` appended.
    pub(crate) log: PathBuf,
    /// Where its process number is kept.
    pub(crate) pid_file: PathBuf,
    /// Whether a command line is that of this very service: process numbers are used again.
    pub(crate) is_ours: IsOurs,
}

impl Daemon {
    /// The running process: that of the pid file, else whatever has the command line. The latter
    /// finds one whose files were deleted under it, as `cargo clean` does.
    pub(crate) fn find(&self) -> Option<ProcessId> {
        let noted = fs::read_to_string(&self.pid_file).ok();
        noted
            .and_then(|text| ProcessId::parse(&text))
            .filter(|pid| self.runs_as(*pid))
            .or_else(|| self.search())
    }

    fn search(&self) -> Option<ProcessId> {
        ProcessId::all().find(|pid| self.runs_as(*pid))
    }

    fn runs_as(&self, pid: ProcessId) -> bool {
        pid.arguments().is_some_and(|arguments| (self.is_ours)(&arguments))
    }

    /// Starts `command` in the background: out of reach of the terminal's Ctrl-C, with no input,
    /// and with its output in the log.
    pub(crate) fn start(&self, command: &mut Command) -> Result<Child> {
        if self.log.exists() {
            fs::rename(&self.log, self.log.with_extension("log.old"))?;
        }
        let cannot = || format!("cannot write {}", self.log.display());
        let log = File::create(&self.log).with_context(cannot)?;
        let child = command
            .stdin(Stdio::null())
            .stdout(log.try_clone().with_context(cannot)?)
            .stderr(log)
            .process_group(0)
            .spawn()
            .with_context(|| {
                format!("cannot start {}", Path::new(command.get_program()).display())
            })?;
        fs::write(&self.pid_file, format!("{}\n", child.id()))
            .with_context(|| format!("cannot write {}", self.pid_file.display()))?;
        Ok(child)
    }

    /// Waits until `is_ready`. One that is not ready in time is killed.
    pub(crate) fn wait_for_start(
        &self,
        mut child: Child,
        timeout: Duration,
        is_ready: impl Fn() -> bool,
    ) -> Result<()> {
        let deadline = Instant::now() + timeout;
        let log = self.log.display();
        while !is_ready() {
            if let Some(status) = child.try_wait()? {
                bail!("{} ended while starting ({status}): see {log}", self.name);
            }
            if Instant::now() > deadline {
                child.kill()?;
                child.wait()?;
                bail!("{} did not answer in {} s: see {log}", self.name, timeout.as_secs());
            }
            sleep(POLL);
        }
        Ok(())
    }

    /// Shows the end of the log on stderr.
    pub(crate) fn show_log(&self) {
        let Ok(text) = fs::read(&self.log) else {
            return;
        };
        let text = String::from_utf8_lossy(&text);
        for line in last_lines(&text, 12) {
            eprintln!("{}: | {line}", self.name);
        }
    }

    /// Sends one signal after the other, giving each its time, until the process is gone.
    pub(crate) fn stop(&self, pid: ProcessId, signals: &[(Signal, Duration)]) -> Result<()> {
        for (signal, patience) in signals {
            pid.send(*signal);
            if until(*patience, || !self.runs_as(pid)) {
                // It may be gone already, if the whole directory is.
                let _ = fs::remove_file(&self.pid_file);
                return Ok(());
            }
        }
        bail!("process {pid} does not stop: is it another user's?")
    }
}

/// Whether `condition` comes about before `patience` is over.
pub(crate) fn until(patience: Duration, condition: impl Fn() -> bool) -> bool {
    let deadline = Instant::now() + patience;
    loop {
        if condition() {
            return true;
        }
        if Instant::now() > deadline {
            return false;
        }
        sleep(POLL);
    }
}

fn last_lines(text: &str, count: usize) -> Vec<&str> {
    let lines: Vec<&str> = text.lines().filter(|line| !line.trim().is_empty()).collect();
    lines[lines.len().saturating_sub(count)..].to_vec()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn process_numbers_are_read_from_the_first_line() {
        let ours = ProcessId::parse(&std::process::id().to_string()).unwrap();
        assert_eq!(ProcessId::parse(&format!("{ours}\n/data\n5432\n")), Some(ours));
        for text in ["", "self", "-1x", "0", "\n12"] {
            assert_eq!(ProcessId::parse(text), None, "{text:?}");
        }
    }

    #[test]
    fn a_process_is_ours_by_its_command_line_only() {
        let dir = std::env::temp_dir().join(format!("annals-xtask-daemon-{}", std::process::id()));
        fs::create_dir_all(&dir).unwrap();
        let marker = "8642.25";
        let daemon = Daemon {
            name: "sleep",
            log: dir.join("sleep.log"),
            pid_file: dir.join("sleep.pid"),
            is_ours: Box::new(move |found| found.iter().any(|argument| argument == marker)),
        };
        // A pid file that names somebody else's process: ours.
        fs::write(&daemon.pid_file, std::process::id().to_string()).unwrap();
        assert_eq!(daemon.find(), None);
        let mut child = daemon.start(Command::new("sleep").arg(marker)).unwrap();
        let pid = ProcessId::parse(&child.id().to_string()).unwrap();
        assert!(until(Duration::from_secs(5), || daemon.find() == Some(pid)));
        fs::remove_file(&daemon.pid_file).unwrap();
        assert_eq!(daemon.find(), Some(pid));
        daemon.stop(pid, &[(Signal::TERM, Duration::from_secs(5))]).unwrap();
        assert_eq!(daemon.find(), None);
        child.wait().unwrap();
        fs::remove_dir_all(&dir).unwrap();
    }

    #[test]
    fn the_end_of_a_log_is_its_last_lines_that_say_something() {
        assert_eq!(last_lines("a\nb\n\nc\n\n", 2), ["b", "c"]);
        assert_eq!(last_lines("a\n", 2), ["a"]);
        assert_eq!(last_lines("", 2), Vec::<&str>::new());
    }
}
