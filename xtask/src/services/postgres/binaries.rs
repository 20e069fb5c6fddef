//! Finding PostgreSQL's server binaries: on the machine, else from Maven Central.

use std::env::consts::{ARCH, OS};
use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::io::BufReader;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail, ensure};
use lzma_rust2::XzReader;

use super::{
    config::{COUNTING, Statements},
    without_settings,
};
use crate::services::account::{Account, is_executable, run_as};
use crate::services::{cache, external, java, packages, say};

/// The variable that takes the binaries from Maven.
const FORCED_VERSION: &str = "ANNALS_POSTGRES_VERSION";

/// The oldest major version that Annals supports.
const OLDEST: u32 = 15;

/// What we take from Maven Central unless asked for another version.
const MAVEN_VERSION: &str = Major::V18.maven_version();

/// A major version of PostgreSQL that Annals is tested on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Major {
    V15,
    V16,
    V17,
    V18,
}

impl Major {
    /// From the oldest to the newest.
    pub(crate) const ALL: [Self; 4] = [Self::V15, Self::V16, Self::V17, Self::V18];

    const fn number(self) -> u32 {
        match self {
            Self::V15 => 15,
            Self::V16 => 16,
            Self::V17 => 17,
            Self::V18 => 18,
        }
    }

    /// The version of its binaries on Maven Central: a certain one, so that runs can be compared.
    const fn maven_version(self) -> &'static str {
        match self {
            Self::V15 => "15.19.0",
            Self::V16 => "16.15.0",
            Self::V17 => "17.11.0",
            Self::V18 => "18.6.0",
        }
    }
}

impl std::fmt::Display for Major {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.number().fmt(f)
    }
}

/// Reads a major version as a user writes it.
pub(crate) fn parse_major(text: &str) -> Result<Major, String> {
    let mut known = Major::ALL.into_iter();
    known
        .find(|major| major.to_string() == text)
        .ok_or_else(|| "Annals is tested on PostgreSQL 15, 16, 17 or 18".to_owned())
}

/// Which binaries to take.
#[derive(Debug)]
pub(crate) enum Wanted {
    /// The machine's own, else Maven Central's.
    Any,
    /// Those of Maven Central, in exactly this version.
    Maven(String),
    /// The machine's own if they are of this version, else Maven Central's.
    Major(Major),
}

impl Wanted {
    /// What the user asks for.
    pub(crate) fn from_environment() -> Self {
        external(FORCED_VERSION).map_or(Self::Any, Self::Maven)
    }

    /// Whether a server will do whose binaries have this version at Maven Central; none for the
    /// machine's own.
    pub(super) fn is_met_by(&self, from_maven: Option<&str>) -> bool {
        match self {
            Self::Any => true,
            Self::Maven(version) => from_maven == Some(version),
            // Its version is not known here; a new one is quickly made.
            Self::Major(_) => false,
        }
    }
}

/// The server binaries of one version.
#[derive(Debug)]
pub(crate) struct Binaries {
    dir: PathBuf,
    pub(crate) major: u32,
    /// As the server itself puts it: "PostgreSQL 15.13".
    pub(crate) version: String,
    /// The version asked for at Maven Central, if they are from there.
    pub(crate) from_maven: Option<String>,
}

impl Binaries {
    /// The binaries that are wanted, on the machine or from Maven Central.
    pub(crate) fn find(wanted: &Wanted, account: Option<&Account>) -> Result<Self> {
        match wanted {
            Wanted::Maven(version) => {
                ensure!(
                    is_maven_version(version),
                    "{FORCED_VERSION}={version} is no version of the binaries on Maven Central \
                     from {OLDEST} on: write it as in {MAVEN_VERSION}"
                );
                Self::from_maven(version, account)
            }
            Wanted::Any => match Self::of_machine(account, |major| major >= OLDEST) {
                Some(binaries) => Ok(binaries),
                None => Self::from_maven(MAVEN_VERSION, account).with_context(|| {
                    format!(
                        "there is no PostgreSQL {OLDEST} or newer, and none to be had from Maven \
                         Central"
                    )
                }),
            },
            Wanted::Major(major) => match Self::of_machine(account, |of| of == major.number()) {
                Some(binaries) => Ok(binaries),
                None => Self::from_maven(major.maven_version(), account),
            },
        }
    }

    /// PATH first, for it is the user's choice; then the newest of Debian's.
    fn of_machine(account: Option<&Account>, will_do: impl Fn(u32) -> bool) -> Option<Self> {
        let in_path = packages::in_path("postgres").filter_map(|file| {
            // initdb looks for its companions beside the file that a link leads to.
            Some(fs::canonicalize(file).ok()?.parent()?.to_path_buf())
        });
        let debian = fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
        let debian = newest_first(debian.filter_map(|entry| entry.file_name().into_string().ok()))
            .into_iter()
            .map(|version| Path::new("/usr/lib/postgresql").join(version).join("bin"));
        in_path.chain(debian).chain(told_by_pg_config()).find_map(|dir| {
            let binaries = Self::inspect(dir, account).ok()?;
            will_do(binaries.major).then_some(binaries)
        })
    }

    /// Asks the server for its version, as the account that is to run it: that shows at once
    /// whether it can.
    fn inspect(dir: PathBuf, account: Option<&Account>) -> Result<Self> {
        ensure!(is_executable(&dir.join("initdb")), "there is no initdb in {}", dir.display());
        let mut binaries = Self { dir, major: 0, version: String::new(), from_maven: None };
        let output = binaries
            .command("postgres", account)
            .arg("--version")
            .current_dir("/")
            .stdin(Stdio::null())
            .output()
            .with_context(|| format!("cannot start {}/postgres", binaries.dir.display()))?;
        let said = String::from_utf8_lossy(&output.stdout);
        let Some((version, major)) = parse_version(&said) else {
            let complaint = String::from_utf8_lossy(&output.stderr);
            bail!("{}/postgres does not run: {}", binaries.dir.display(), complaint.trim());
        };
        binaries.version = format!("PostgreSQL {version}");
        binaries.major = major;
        Ok(binaries)
    }

    /// Runs one of the binaries as `account`.
    pub(crate) fn command(&self, name: &str, account: Option<&Account>) -> Command {
        let mut command = without_settings(Command::new(self.dir.join(name)));
        run_as(&mut command, account);
        command
    }

    /// Whether a server of these binaries can count statements.
    pub(crate) fn statements(&self) -> Statements {
        // Where Debian, the archives of Maven and Fedora have a server's libraries, beside its binaries.
        let folders = ["lib", "lib/postgresql", "lib64/pgsql"];
        let root = self.dir.parent().unwrap_or(&self.dir);
        let names = ["so", "dylib"].map(|ending| format!("{COUNTING}.{ending}"));
        let is_in = |folder: &str| names.iter().any(|name| root.join(folder).join(name).is_file());
        match folders.into_iter().any(is_in) {
            true => Statements::Counted,
            false => Statements::NotCounted,
        }
    }

    fn from_maven(version: &str, account: Option<&Account>) -> Result<Self> {
        let platform = maven_platform(OS, ARCH).with_context(|| {
            format!(
                "there are no PostgreSQL binaries for {OS} on {ARCH} to download: install \
                 PostgreSQL {OLDEST} or newer, or set DATABASE_URL"
            )
        })?;
        let dir = cache::directory(&format!("postgres-{version}"), account, |dir| {
            say("postgres", format_args!("downloading PostgreSQL {version} from Maven Central"));
            let artifact = format!("embedded-postgres-binaries-{platform}:{version}");
            download(&artifact, dir).with_context(|| format!("cannot get {artifact}"))
        })?;
        let mut binaries = Self::inspect(dir.join("bin"), account)?;
        binaries.from_maven = Some(version.into());
        Ok(binaries)
    }
}

/// Unpacks an artifact into `dir`: a jar file that contains a tar.xz file.
fn download(artifact: &str, dir: &Path) -> Result<()> {
    let jar = dir.join("jar");
    let mut output = OsString::from("-DoutputDirectory=");
    output.push(&jar);
    let artifact = format!("-Dartifact=io.zonky.test.postgres:{artifact}");
    java::maven(dir, "unpack", &[OsStr::new(&artifact), &output])?;
    let archive = fs::read_dir(&jar)?
        .flatten()
        .map(|entry| entry.path())
        .find(|path| path.extension().is_some_and(|extension| extension == "txz"))
        .context("there is no .txz file in it")?;
    let reader = XzReader::new(BufReader::new(File::open(&archive)?), true);
    tar::Archive::new(reader)
        .unpack(dir)
        .with_context(|| format!("cannot unpack {}", archive.display()))?;
    fs::remove_dir_all(&jar)?;
    Ok(())
}

fn told_by_pg_config() -> Option<PathBuf> {
    let output = Command::new("pg_config").arg("--bindir").stdin(Stdio::null()).output().ok()?;
    let said = String::from_utf8(output.stdout).ok()?;
    output.status.success().then(|| PathBuf::from(said.trim()))
}

/// The numbers among directory names, from the highest down.
fn newest_first(names: impl Iterator<Item = String>) -> Vec<String> {
    let mut versions: Vec<(u32, String)> =
        names.filter_map(|name| Some((name.parse().ok()?, name))).collect();
    versions.sort_unstable_by_key(|(version, _)| std::cmp::Reverse(*version));
    versions.into_iter().map(|(_, name)| name).collect()
}

/// Version and major version in what `postgres --version` says.
fn parse_version(said: &str) -> Option<(&str, u32)> {
    let version =
        said.split_whitespace().find(|word| word.starts_with(|c: char| c.is_ascii_digit()))?;
    let major = version.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()?;
    Some((version, major))
}

/// Whether this is a version as Maven Central has them, and new enough. It becomes part of a path.
fn is_maven_version(version: &str) -> bool {
    let parts: Vec<Option<u32>> = version
        .split('.')
        .map(|part| part.bytes().all(|byte| byte.is_ascii_digit()).then(|| part.parse().ok())?)
        .collect();
    matches!(parts[..], [Some(major), Some(_), Some(_)] if major >= OLDEST)
}

/// The end of the artifact's name.
fn maven_platform(os: &str, arch: &str) -> Option<&'static str> {
    match (os, arch) {
        ("linux", "x86_64") => Some("linux-amd64"),
        ("linux", "aarch64") => Some("linux-arm64v8"),
        ("macos", "x86_64") => Some("darwin-amd64"),
        ("macos", "aarch64") => Some("darwin-arm64v8"),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_of_the_server_is_the_first_word_with_a_number() {
        let debian = "postgres (PostgreSQL) 15.13 (Debian 15.13-0+deb12u1)\n";
        assert_eq!(parse_version(debian), Some(("15.13", 15)));
        assert_eq!(parse_version("postgres (PostgreSQL) 19beta1"), Some(("19beta1", 19)));
        assert_eq!(parse_version("postgres (PostgreSQL)"), None);
    }

    #[test]
    fn statements_are_counted_where_the_library_is_there() {
        let root = std::env::temp_dir().join(format!("annals-binaries-{}", std::process::id()));
        let binaries =
            Binaries { dir: root.join("bin"), major: 15, version: String::new(), from_maven: None };
        fs::create_dir_all(root.join("lib/postgresql")).unwrap();
        assert_eq!(binaries.statements(), Statements::NotCounted);
        fs::write(root.join("lib/postgresql/pg_stat_statements.so"), "").unwrap();
        let counted = binaries.statements();
        fs::remove_dir_all(&root).unwrap();
        assert_eq!(counted, Statements::Counted);
    }

    #[test]
    fn the_newest_is_the_highest_number() {
        let names = ["9", "9.6", "15", "common", "100", "16"].map(String::from);
        assert_eq!(newest_first(names.into_iter()), ["100", "16", "15", "9"]);
    }

    #[test]
    fn only_versions_that_maven_central_may_have_are_asked_for() {
        for version in ["18.1.0", "15.13.0", "16.2.0"] {
            assert!(is_maven_version(version), "{version}");
        }
        for version in ["18.1", "18", "14.9.0", "18.1.0-1", "../../18.1.0", "18..0", "+18.1.0", ""]
        {
            assert!(!is_maven_version(version), "{version}");
        }
    }

    #[test]
    fn each_major_version_has_binaries_of_its_own() {
        for major in Major::ALL {
            let version = major.maven_version();
            assert!(is_maven_version(version), "{version}");
            assert!(version.starts_with(&format!("{major}.")), "{version}");
            assert_eq!(parse_major(&major.to_string()), Ok(major));
        }
        assert_eq!(Major::ALL[0].number(), OLDEST);
    }

    #[test]
    fn this_machine_is_one_that_binaries_exist_for_or_says_so() {
        assert_eq!(maven_platform("linux", "x86_64"), Some("linux-amd64"));
        assert_eq!(maven_platform("linux", "aarch64"), Some("linux-arm64v8"));
        assert_eq!(maven_platform("windows", "x86_64"), None);
    }
}
