//! The processes that outlive a PostgreSQL server which is killed with SIGKILL.
//!
//! They end when they notice, which one at work on a long query does not. Until they have ended
//! PostgreSQL refuses to start another server on their data: rightly so, two would ruin it.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Result, bail};
use rustix::process::Signal;

use crate::services::daemon::{ProcessId, until};
use crate::services::say;

/// Whether this machine tells of them at all.
pub(crate) fn can_be_found() -> bool {
    Path::new("/proc/self/cwd").exists()
}

/// Ends those that work on data below one of `roots`. Only to be called when no server runs there.
pub(crate) fn end(roots: &[PathBuf]) -> Result<()> {
    for signal in [Signal::QUIT, Signal::KILL] {
        let left = find(roots);
        if left.is_empty() {
            return Ok(());
        }
        say("postgres", format_args!("ending {} processes of a killed server", left.len()));
        for pid in left {
            pid.send(signal);
        }
        if until(Duration::from_secs(5), || find(roots).is_empty()) {
            return Ok(());
        }
    }
    bail!("processes of a killed server do not end: {:?}", find(roots))
}

/// PostgreSQL's processes work in the data directory, and change what their command line says.
fn find(roots: &[PathBuf]) -> Vec<ProcessId> {
    let is_theirs = |pid: &ProcessId| {
        let Ok(directory) = fs::read_link(Path::new("/proc").join(pid.to_string()).join("cwd"))
        else {
            return false;
        };
        roots.iter().any(|root| directory.starts_with(root))
            && pid.arguments().is_some_and(|found| found[0].starts_with("postgres: "))
    };
    ProcessId::all().filter(is_theirs).collect()
}
