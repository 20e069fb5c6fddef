//! Java and Maven: found on the machine, or installed where we may.

use std::env;
use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail, ensure};

use super::account::is_executable;
use super::packages::{apt_install, in_path};

/// The oldest Java that runs the broker.
const OLDEST_JAVA: u32 = 17;

/// The goals we use are named with their version, so that they are the same everywhere.
const DEPENDENCY_PLUGIN: &str = "org.apache.maven.plugins:maven-dependency-plugin:3.8.1";

/// A `java` that is new enough.
pub(crate) fn java() -> Result<PathBuf> {
    if let Some(java) = find_java() {
        return Ok(java);
    }
    // Debian names its packages by version, and each release has its own.
    for package in ["openjdk-17-jre-headless", "default-jre-headless"] {
        if apt_install(package)
            && let Some(java) = find_java()
        {
            return Ok(java);
        }
    }
    bail!(
        "there is no Java {OLDEST_JAVA} or newer: install one (Debian and Ubuntu: apt-get install \
         openjdk-17-jre-headless; Fedora: dnf install java-21-openjdk-headless; macOS: brew \
         install openjdk) or set JAVA_HOME"
    )
}

fn find_java() -> Option<PathBuf> {
    let home = env::var_os("JAVA_HOME").map(|home| Path::new(&home).join("bin/java"));
    let installed = fs::read_dir("/usr/lib/jvm").into_iter().flatten().flatten();
    home.into_iter()
        .chain(in_path("java"))
        .chain(installed.map(|entry| entry.path().join("bin/java")))
        .filter(|java| is_executable(java))
        .find(|java| version_of(java).is_some_and(|version| version >= OLDEST_JAVA))
}

fn version_of(java: &Path) -> Option<u32> {
    let output = Command::new(java).arg("-version").stdin(Stdio::null()).output().ok()?;
    parse_version(&String::from_utf8_lossy(&output.stderr))
}

/// The major version in what `java -version` says.
fn parse_version(said: &str) -> Option<u32> {
    let quoted = said.split('"').nth(1)?;
    // Up to Java 8 the version was 1.8.
    let version = quoted.strip_prefix("1.").unwrap_or(quoted);
    version.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()
}

/// Runs a goal of Maven's dependency plugin in `dir`.
pub(crate) fn maven(dir: &Path, goal: &str, arguments: &[&OsStr]) -> Result<()> {
    let output = Command::new(find_maven()?)
        // Wrong checksums are an error, and nothing may ask.
        .args(["--batch-mode", "--no-transfer-progress", "--strict-checksums"])
        .arg(format!("{DEPENDENCY_PLUGIN}:{goal}"))
        .args(arguments)
        .current_dir(dir)
        .stdin(Stdio::null())
        .output()
        .context("cannot start Maven")?;
    let said = [output.stdout, output.stderr].concat();
    let said = String::from_utf8_lossy(&said);
    ensure!(output.status.success(), "Maven failed: {}", reason(&said));
    Ok(())
}

/// The first complaint in what Maven said.
fn reason(said: &str) -> &str {
    let says_something = |line: &&str| !line.is_empty();
    said.lines()
        .filter_map(|line| line.strip_prefix("[ERROR]"))
        .map(str::trim)
        .find(says_something)
        .or_else(|| said.lines().map(str::trim).rfind(says_something))
        .unwrap_or("it does not say why")
}

fn find_maven() -> Result<PathBuf> {
    if let Some(maven) = in_path("mvn").next() {
        return Ok(maven);
    }
    if apt_install("maven")
        && let Some(maven) = in_path("mvn").next()
    {
        return Ok(maven);
    }
    bail!(
        "there is no Maven (mvn) to download with: install it (Debian and Ubuntu: apt-get install \
         maven; Fedora: dnf install maven; macOS: brew install maven)"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_of_java_is_its_first_number_since_java_9() {
        let said = |version: &str| format!("openjdk version \"{version}\" 2025-04-15\nOpenJDK");
        assert_eq!(parse_version(&said("17.0.15")), Some(17));
        assert_eq!(parse_version(&said("21")), Some(21));
        assert_eq!(parse_version(&said("25-ea")), Some(25));
        assert_eq!(parse_version(&said("1.8.0_392")), Some(8));
        assert_eq!(parse_version("No Java runtime present"), None);
    }

    #[test]
    fn the_reason_is_the_first_complaint_that_says_something() {
        let said = "[INFO] Scanning\n[ERROR] \n[ERROR] no such artifact\n[ERROR] more\n";
        assert_eq!(reason(said), "no such artifact");
        assert_eq!(reason("no mvn here\n\n"), "no mvn here");
        assert_eq!(reason(""), "it does not say why");
    }
}
