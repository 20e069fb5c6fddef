//! What becomes of a store when its server is killed, its disk is full, its connections are cut, or its
//! clock is set back. Each test that harms a server has one of its own.
#![allow(clippy::unwrap_used, reason = "these are tests")]

mod clock;
mod crash;
mod cut;
mod cutter;
mod disk;
mod follower;
mod standby;
#[path = "../support/mod.rs"]
mod support;

use std::{fs, io::Write, path::Path, process::Command};

use crate::support::server::PrivateServer;

/// Kills all of a server with `kill -9` at once, the postmaster and its children.
fn kill_all(server: &mut PrivateServer) {
    let data = server.data().canonicalize().unwrap();
    let postmaster = fs::read_to_string(data.join("postmaster.pid")).unwrap();
    let postmaster = postmaster.lines().next().unwrap().to_owned();
    let children = fs::read_dir("/proc").unwrap().flatten().filter_map(|process| {
        let at_work = fs::read_link(process.path().join("cwd")).ok()?;
        let id = process.file_name().into_string().ok()?;
        (at_work == data && id != postmaster).then_some(id)
    });
    // The postmaster first: it would start others in their place.
    let processes: Vec<String> = std::iter::once(postmaster.clone()).chain(children).collect();
    assert!(processes.len() > 3, "a server has several processes");
    // One that ends by itself meanwhile is as dead.
    drop(Command::new("kill").arg("-9").args(&processes).output().unwrap());
    server.kill();
}

/// Says that a test could not be done, past the harness, which shows nothing of tests that pass. Where root
/// runs it for CI it must be done: a test that is skipped there is one that nobody runs.
fn skipped(test: &str, reason: &str) {
    let is_ci = std::env::var("CI").is_ok_and(|ci| ci == "true");
    let is_root = support::server::Account::for_postgres().is_some();
    assert!(!(is_ci && is_root), "{test} cannot be done: {reason}");
    let line = format!("SKIPPED: {test}: {reason}\n");
    std::io::stderr().write_all(line.as_bytes()).unwrap();
}

/// A file system in memory in the place of a folder, with its content; gone when dropped.
struct SmallDisk<'a> {
    folder: &'a Path,
}

impl<'a> SmallDisk<'a> {
    /// Why not, if this process may not mount.
    fn mount(folder: &'a Path, megabytes: u32) -> Result<Self, String> {
        let kept = folder.with_extension("kept");
        fs::rename(folder, &kept).unwrap();
        fs::create_dir(folder).unwrap();
        let size = format!("size={megabytes}m");
        let mounted =
            run(Command::new("mount").args(["-t", "tmpfs", "-o", &size, "tmpfs"]).arg(folder));
        if let Err(reason) = mounted {
            fs::remove_dir(folder).unwrap();
            fs::rename(&kept, folder).unwrap();
            return Err(reason);
        }
        // With its owners and permissions.
        let mut from = kept.into_os_string();
        from.push("/.");
        run(Command::new("cp").arg("-a").arg(from).arg(folder)).unwrap();
        Ok(Self { folder })
    }

    /// Fills what is left, but for some kilobytes.
    fn fill(&self, but_for: u64) {
        let mut ballast = fs::File::create(self.ballast()).unwrap();
        let kilobyte = [1; 1024];
        while ballast.write_all(&kilobyte).is_ok() {}
        let length = ballast.metadata().unwrap().len();
        ballast.set_len(length.saturating_sub(but_for * 1024)).unwrap();
    }

    fn free(&self) {
        fs::remove_file(self.ballast()).unwrap();
    }

    fn ballast(&self) -> std::path::PathBuf {
        self.folder.join("ballast")
    }
}

impl Drop for SmallDisk<'_> {
    fn drop(&mut self) {
        // Lazily: the server may be at work there still.
        drop(run(Command::new("umount").arg("-l").arg(self.folder)));
    }
}

fn run(command: &mut Command) -> Result<(), String> {
    let output = command.output().map_err(|error| error.to_string())?;
    let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    if output.status.success() { Ok(()) } else { Err(said) }
}
