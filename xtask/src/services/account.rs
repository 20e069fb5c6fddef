//! The account that PostgreSQL runs under, because it refuses to run as root.

use std::fs::{self, Metadata};
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};

/// A user of the machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Account {
    pub(crate) name: String,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
}

/// The effective user of this process.
pub(crate) fn current_uid() -> u32 {
    rustix::process::geteuid().as_raw()
}

/// Whether this process may do what only root may.
pub(crate) fn is_root() -> bool {
    current_uid() == 0
}

/// The account to change to for PostgreSQL; none if ours will do.
pub(crate) fn for_postgres() -> Result<Option<Account>> {
    if !is_root() {
        return Ok(None);
    }
    let users = fs::read_to_string("/etc/passwd").context("cannot read /etc/passwd")?;
    let account = ["postgres", "nobody"].into_iter().find_map(|name| find(&users, name));
    let missing = "PostgreSQL does not run as root, and there is no user postgres or nobody: \
                   create one (useradd --system postgres) or run this as another user";
    account.map(Some).context(missing)
}

/// Looks up a user in the text of /etc/passwd. One with root's rights is of no use.
fn find(passwd: &str, name: &str) -> Option<Account> {
    passwd.lines().find_map(|line| {
        let fields: Vec<&str> = line.split(':').collect();
        let [found, _password, uid, gid, ..] = fields[..] else {
            return None;
        };
        let (uid, gid) = (uid.parse().ok()?, gid.parse().ok()?);
        (found == name && uid != 0).then(|| Account { name: name.into(), uid, gid })
    })
}

impl Account {
    /// Whether this account gets to `path`: every directory on the way must be open to it.
    pub(crate) fn reaches(&self, path: &Path) -> bool {
        path.ancestors().all(|dir| fs::metadata(dir).is_ok_and(|found| self.may_search(&found)))
    }

    fn may_search(&self, dir: &Metadata) -> bool {
        self.has_execute_bit(dir.mode(), dir.uid(), dir.gid())
    }

    fn has_execute_bit(&self, mode: u32, owner: u32, group: u32) -> bool {
        // The first class that applies decides, as in the kernel.
        let bit = match (owner == self.uid, group == self.gid) {
            (true, _) => 0o100,
            (false, true) => 0o010,
            (false, false) => 0o001,
        };
        mode & bit != 0
    }
}

/// Runs `command` as `account`, and as nobody else: the standard library drops root's other groups.
pub(crate) fn run_as(command: &mut Command, account: Option<&Account>) {
    if let Some(account) = account {
        command.uid(account.uid).gid(account.gid);
        command.env("HOME", "/").env("USER", &account.name).env("LOGNAME", &account.name);
    }
}

/// Whether a file is there that somebody may execute.
pub(crate) fn is_executable(path: &Path) -> bool {
    fs::metadata(path).is_ok_and(|found| found.is_file() && found.mode() & 0o111 != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &str = "root:x:0:0:root:/root:/bin/bash\n\
        # a comment\n\
        broken:x:ten\n\
        toor:x:0:0::/:/bin/sh\n\
        nobody:x:65534:65533:nobody:/nonexistent:/usr/sbin/nologin\n\
        postgres:x:101:104:PostgreSQL administrator,,,:/var/lib/postgresql:/bin/bash\n";

    #[test]
    fn users_are_found_by_their_whole_name() {
        let postgres = Account { name: "postgres".into(), uid: 101, gid: 104 };
        assert_eq!(find(PASSWD, "postgres"), Some(postgres));
        assert_eq!(find(PASSWD, "nobody").map(|account| account.gid), Some(65_533));
        assert_eq!(find(PASSWD, "post"), None);
        assert_eq!(find(PASSWD, "broken"), None);
    }

    #[test]
    fn an_account_with_the_rights_of_root_is_not_taken() {
        assert_eq!(find(PASSWD, "toor"), None);
    }

    #[test]
    fn the_first_class_of_permissions_that_applies_decides() {
        let account = Account { name: "postgres".into(), uid: 101, gid: 104 };
        assert!(!account.has_execute_bit(0o40700, 0, 0));
        assert!(account.has_execute_bit(0o40701, 0, 0));
        assert!(account.has_execute_bit(0o40710, 0, 104));
        assert!(!account.has_execute_bit(0o40707, 0, 104));
        assert!(!account.has_execute_bit(0o40077, 101, 104));
    }
}
