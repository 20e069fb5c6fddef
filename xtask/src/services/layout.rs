//! Where the services of a checkout keep what they write.
//!
//! All of it is in `annals-services` in the target directory, apart from PostgreSQL's data when
//! the account that has to run PostgreSQL cannot get there: see [`Layout::fallback`].

use std::fs::{self, DirBuilder, File};
use std::io::ErrorKind;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};

use super::{account, say};
use crate::cargo;

/// The directories and files of the services.
pub(crate) struct Layout {
    dir: PathBuf,
}

impl Layout {
    /// The layout of the checkout that this command runs in.
    pub(crate) fn discover() -> Result<Self> {
        Ok(Self { dir: cargo::target_directory()?.join("annals-services") })
    }

    /// The layout of other services of the same checkout, with directories of their own.
    pub(crate) fn beside(&self, name: &str) -> Self {
        Self { dir: self.dir.join(name) }
    }

    /// The directory that holds everything, but for the fallback.
    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }

    /// What is to be remembered between runs.
    pub(crate) fn state_file(&self) -> PathBuf {
        self.dir.join("state.json")
    }

    /// Kafka's configuration, data and log.
    pub(crate) fn kafka(&self) -> PathBuf {
        self.dir.join("kafka")
    }

    /// PostgreSQL's clusters and logs, one directory for each major version.
    pub(crate) fn postgres(&self) -> PathBuf {
        self.dir.join("postgres")
    }

    /// Where PostgreSQL's data goes if its account has no way into the target directory (below a
    /// home directory with mode 0700, say, when root runs us).
    pub(crate) fn fallback(&self) -> PathBuf {
        Path::new("/var/tmp").join(format!("annals-services-{:016x}", self.id()))
    }

    /// Creates the fallback directory, or makes sure that it is ours: anybody may create files in
    /// /var/tmp, and we would hand ownership of what is in there to another account.
    pub(crate) fn claim_fallback(&self) -> Result<PathBuf> {
        let dir = self.fallback();
        match DirBuilder::new().mode(0o755).create(&dir) {
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
            outcome => outcome.with_context(|| format!("cannot create {}", dir.display()))?,
        }
        let found = fs::symlink_metadata(&dir)?;
        ensure!(
            found.is_dir() && found.uid() == account::current_uid(),
            "{} belongs to somebody else: delete it or set CARGO_TARGET_DIR to another directory",
            dir.display()
        );
        Ok(dir)
    }

    /// A number that is the same in every run of this checkout and another one in others.
    pub(crate) fn id(&self) -> u64 {
        // FNV-1a: the standard library's hashers may differ between releases.
        self.dir.as_os_str().as_encoded_bytes().iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
            (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
        })
    }

    /// Keeps other runs out until the guard is dropped.
    ///
    /// The file lies beside the directory, so that a purge cannot delete it while another run
    /// waits for it; that one would then hold a lock that nobody else sees.
    pub(crate) fn lock(&self) -> Result<File> {
        fs::create_dir_all(self.dir.parent().unwrap_or(&self.dir))?;
        lock_file(&self.dir.with_extension("lock"), "another cargo xtask")
    }
}

/// Takes the lock of `path`, waiting for it; says so if that takes a wait.
pub(crate) fn lock_file(path: &Path, holder: &str) -> Result<File> {
    let cannot = || format!("cannot lock {}", path.display());
    let file =
        File::options().create(true).truncate(false).write(true).open(path).with_context(cannot)?;
    if file.try_lock().is_err() {
        say("services", format_args!("waiting for {holder} to finish"));
        file.lock().with_context(cannot)?;
    }
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checkouts_differ_in_their_fallback_and_each_keeps_its_own() {
        let layout = |dir: &str| Layout { dir: dir.into() };
        assert_eq!(layout("/a/target").fallback(), layout("/a/target").fallback());
        assert_ne!(layout("/a/target").fallback(), layout("/b/target").fallback());
        // The documented value of FNV-1a: another one would strand the data of earlier runs.
        assert_eq!(layout("a").id(), 0xaf63_dc4c_8601_ec8c);
    }
}
