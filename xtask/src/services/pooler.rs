//! PgBouncer, which tests start themselves: it only has to be there.

use std::path::Path;

use anyhow::{Result, ensure};

use super::account::is_executable;
use super::packages::{apt_install, in_path};

/// Installs it where we may.
pub(crate) fn ensure_installed() -> Result<()> {
    ensure!(
        is_installed() || (apt_install("pgbouncer") && is_installed()),
        "there is no pgbouncer, through which the store is tested too: install it (Debian and \
         Ubuntu: apt-get install pgbouncer; Fedora: dnf install pgbouncer; macOS: brew install \
         pgbouncer)"
    );
    Ok(())
}

fn is_installed() -> bool {
    // Debian's place is not in everybody's PATH.
    in_path("pgbouncer").next().is_some() || is_executable(Path::new("/usr/sbin/pgbouncer"))
}
