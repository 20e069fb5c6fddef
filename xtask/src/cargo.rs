//! Running cargo on this workspace.

use std::env;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use serde::Deserialize;

use crate::services::packages::{apt_install, in_path};

/// The cargo that runs us, so that the toolchain stays the same.
pub(crate) fn command() -> Command {
    let mut command = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    // What cargo tells us of this crate is not for the crates that it builds: some build scripts
    // run again whenever these variables change, and everything above them is built again.
    let ours = |name: &str| name.starts_with("CARGO_PKG_") || name.starts_with("CARGO_MANIFEST_");
    for (name, _) in env::vars_os().filter(|(name, _)| name.to_str().is_some_and(ours)) {
        command.env_remove(name);
    }
    command
}

/// Makes sure that librdkafka can be built: its build needs a C++ compiler and make beside the C
/// compiler that Rust links with.
pub(crate) fn check_compilers() -> Result<()> {
    let missing =
        || ["cc", "c++", "make"].into_iter().filter(|tool| in_path(tool).next().is_none());
    if missing().next().is_some() {
        apt_install("build-essential");
    }
    let missing: Vec<_> = missing().collect();
    ensure!(
        missing.is_empty(),
        "there is no {} to build librdkafka with: install a C and C++ compiler and make (Debian \
         and Ubuntu: apt-get install build-essential; Fedora: dnf install gcc-c++ make; macOS: \
         xcode-select --install)",
        missing.join(", no ")
    );
    Ok(())
}

/// Makes sure that TLS to Kafka can be built, and the crates which Annals is measured beside, one of which
/// comes with native TLS: both need the headers of OpenSSL.
pub(crate) fn check_openssl() -> Result<()> {
    let found = || {
        let mut command = Command::new("pkg-config");
        let quiet = command.args(["--exists", "openssl"]).stderr(Stdio::null());
        quiet.status().is_ok_and(|status| status.success())
    };
    if !cfg!(target_os = "linux") || env::var_os("OPENSSL_DIR").is_some() || found() {
        return Ok(());
    }
    for package in ["pkg-config", "libssl-dev"] {
        apt_install(package);
    }
    ensure!(
        found(),
        "there are no headers of OpenSSL, which TLS to Kafka is built with: install \
         them (Debian and Ubuntu: apt-get install pkg-config libssl-dev; Fedora: dnf install \
         pkgconf openssl-devel)"
    );
    Ok(())
}

/// Becomes `command`: its exit code and the terminal's signals are the caller's business, not
/// ours, and nothing of ours is left between them. Returns only if it cannot be started.
pub(crate) fn become_command(mut command: Command) -> anyhow::Error {
    let error = command.exec();
    anyhow::Error::new(error).context("cannot start cargo")
}

/// Where cargo puts what it builds: it alone knows (CARGO_TARGET_DIR, its configuration files).
pub(crate) fn target_directory() -> Result<PathBuf> {
    #[derive(Deserialize)]
    struct Metadata {
        target_directory: PathBuf,
    }

    // At run time cargo says where the crate is now; the compiled-in path may be from before the
    // checkout was moved.
    let crate_dir =
        env::var_os("CARGO_MANIFEST_DIR").unwrap_or_else(|| env!("CARGO_MANIFEST_DIR").into());
    let output = command()
        .args(["metadata", "--no-deps", "--format-version", "1", "--manifest-path"])
        .arg(PathBuf::from(crate_dir).join("Cargo.toml"))
        .stderr(Stdio::inherit())
        .output()
        .context("cannot start cargo to ask for the target directory")?;
    ensure!(output.status.success(), "cargo metadata failed with {}", output.status);
    let metadata: Metadata = serde_json::from_slice(&output.stdout)
        .context("cannot read what cargo metadata says about the target directory")?;
    Ok(metadata.target_directory)
}
