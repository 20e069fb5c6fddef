//! Downloads, kept between runs and shared by all checkouts of a user.

use std::env;
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};

use super::account::{Account, is_root};
use super::layout::lock_file;

/// The directory `name` of the cache. If it is not there, `fill` makes its content in a directory
/// that gets the name only when it is complete: an interrupted download leaves no half of one.
pub(crate) fn directory(
    name: &str,
    reader: Option<&Account>,
    fill: impl FnOnce(&Path) -> Result<()>,
) -> Result<PathBuf> {
    let base = base(reader)?;
    let complete = base.join(name);
    if complete.exists() {
        return Ok(complete);
    }
    let cannot = || format!("cannot write to the cache {}", base.display());
    fs::create_dir_all(&base).with_context(cannot)?;
    open_to_all(&base, reader).with_context(cannot)?;
    let _lock = lock_file(&base.join("lock"), "another download")?;
    if complete.exists() {
        return Ok(complete);
    }
    let unfinished = base.join(format!("{name}.unfinished"));
    if unfinished.exists() {
        fs::remove_dir_all(&unfinished).with_context(cannot)?;
    }
    fs::create_dir(&unfinished).with_context(cannot)?;
    fill(&unfinished)?;
    open_to_all(&unfinished, reader).with_context(cannot)?;
    fs::rename(&unfinished, &complete).with_context(cannot)?;
    Ok(complete)
}

/// The user's cache; that of the machine, if `reader` cannot get to the former.
fn base(reader: Option<&Account>) -> Result<PathBuf> {
    let absolute = |variable| env::var_os(variable).map(PathBuf::from).filter(|p| p.is_absolute());
    let of_user =
        absolute("XDG_CACHE_HOME").or_else(|| absolute("HOME").map(|home| home.join(".cache")));
    let of_machine = || is_root().then(|| PathBuf::from("/var/cache"));
    let cache = match reader {
        None => of_user.or_else(of_machine),
        Some(reader) => of_user
            .filter(|dir| fs::create_dir_all(dir).is_ok() && reader.reaches(dir))
            .or_else(of_machine),
    };
    let cache = cache.context("there is no place for downloads: set HOME or XDG_CACHE_HOME")?;
    ensure!(cache.is_absolute(), "the cache {} is not an absolute path", cache.display());
    Ok(cache.join("annals"))
}

/// Lets `reader` into a directory of ours, whatever our umask.
fn open_to_all(dir: &Path, reader: Option<&Account>) -> std::io::Result<()> {
    match reader {
        Some(_) => fs::set_permissions(dir, Permissions::from_mode(0o755)),
        None => Ok(()),
    }
}
