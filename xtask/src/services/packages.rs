//! What is installed on the machine, and installing what is missing.

use std::env;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::OnceLock;

use super::account::{is_executable, is_root};
use super::say;

/// The executable files of this name in PATH.
pub(crate) fn in_path(name: &str) -> impl Iterator<Item = PathBuf> + use<> {
    let path = env::var_os("PATH").unwrap_or_default();
    let candidates: Vec<PathBuf> = env::split_paths(&path).map(|dir| dir.join(name)).collect();
    candidates.into_iter().filter(|candidate| is_executable(candidate))
}

/// Installs a Debian package, if this machine has such and we are root; says whether it did.
pub(crate) fn apt_install(package: &str) -> bool {
    static LISTS: OnceLock<bool> = OnceLock::new();
    if !is_root() || in_path("apt-get").next().is_none() {
        return false;
    }
    // Lists that cannot be updated may still do.
    LISTS.get_or_init(|| apt_get(&["update"]));
    say("services", format_args!("installing {package} (apt-get)"));
    apt_get(&["install", "-y", "--no-install-recommends", package])
}

fn apt_get(arguments: &[&str]) -> bool {
    let output = Command::new("apt-get")
        // Somebody else may be installing something.
        .args(["-q", "-o", "DPkg::Lock::Timeout=120"])
        .args(arguments)
        .env("DEBIAN_FRONTEND", "noninteractive")
        .stdin(Stdio::null())
        .output();
    let complaint = match &output {
        Ok(output) if output.status.success() => return true,
        Ok(output) => String::from_utf8_lossy(&output.stderr).trim().replace('\n', " "),
        Err(error) => error.to_string(),
    };
    say("services", format_args!("apt-get {} failed: {complaint}", arguments.join(" ")));
    false
}
