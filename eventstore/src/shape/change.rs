//! In what the shapes of the code and those of a lock file differ, and what to do about it.

use std::{
    fmt::{self, Display, Formatter},
    io,
    path::PathBuf,
};

/// A stored type of event at one schema version.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub struct ShapeKey {
    /// The category of its streams.
    pub category: String,
    /// The stored name.
    pub event_type: String,
    /// The schema version.
    pub version: u32,
}

impl Display for ShapeKey {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} {}", self.category, self.event_type, self.version)
    }
}

/// One difference between the shapes of the code and those of a lock file.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ShapeChange {
    /// The shape is another, and the version the same.
    Changed {
        /// The type and version in the lock file.
        key: ShapeKey,
        /// The shape in the lock file.
        locked: String,
        /// The shape in the code.
        now: String,
    },
    /// The code reads older versions only, and refuses this one.
    WentBack {
        /// The type and version in the lock file.
        key: ShapeKey,
        /// The highest version that the code reads.
        now: u32,
    },
    /// The code does not know the type any more.
    Removed {
        /// The type and version in the lock file.
        key: ShapeKey,
    },
    /// No aggregate of this category was given.
    CategoryRemoved {
        /// The category in the lock file.
        category: String,
    },
    /// A new type or a new version: the lock file is to be updated.
    NotLocked {
        /// The type and version in the code.
        key: ShapeKey,
    },
}

impl ShapeChange {
    /// True if updating the lock file is all there is to do.
    pub fn is_addition(&self) -> bool {
        matches!(self, Self::NotLocked { .. })
    }
}

impl Display for ShapeChange {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Changed { key, locked, now } => {
                writeln!(f, "[{key}] the stored shape changed, and the version did not:")?;
                for (sign, line) in diff(locked, now) {
                    writeln!(f, "    {sign} {line}")?;
                }
                let next = u64::from(key.version) + 1;
                write!(
                    f,
                    "  Events are stored in the old shape. Undo the change, or make it \
                     `#[event(version = {next})]`, with `upcast_from` if the old payloads do not fit \
                     the new shape. If none was ever stored, delete the block from the lock file and \
                     update it."
                )
            }
            Self::WentBack { key, now } => write!(
                f,
                "[{key}] the code reads this type up to version {now} only; give it its version back, or \
                 a higher one, with a type for each version if it is split"
            ),
            Self::Removed { key } => {
                let name = &key.event_type;
                write!(
                    f,
                    "[{key}] nothing in the code reads this type; on the variant that it became, \
                     write `#[event(alias = {name:?})]`; on the enum, `#[event(dropped({name:?}))]`, \
                     or `#[event(split({name:?}, ..))]` if it became several events"
                )
            }
            Self::CategoryRemoved { category } => write!(
                f,
                "[{category} ..] no aggregate of this category was given; add it to the `EventShapes`. \
                 If no stream of it was ever written, delete its blocks from the lock file."
            ),
            Self::NotLocked { key } => write!(f, "[{key}] is new and not in the lock file yet"),
        }
    }
}

/// A lock file does not agree with the code, or cannot be read or written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LockError {
    /// The shapes are others.
    #[error("{}", differ(path, changes))]
    Differs {
        /// The lock file.
        path: PathBuf,
        /// What differs, at least one.
        changes: Vec<ShapeChange>,
    },
    /// The file is no lock file that this version can read.
    #[error("{}:{line}: {reason}", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
        /// What is wrong with it.
        reason: String,
    },
    /// The file cannot be read or written.
    #[error("cannot {action} the lock file {}", path.display())]
    File {
        /// `read` or `write`.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
}

fn differ(path: &std::path::Path, changes: &[ShapeChange]) -> String {
    let mut text = format!("the events' shapes differ from {}:", path.display());
    for change in changes {
        text.push_str("\n  ");
        text.push_str(&change.to_string());
    }
    if changes.iter().any(ShapeChange::is_addition) {
        text.push_str(
            "\n  To add what is new, run the test once more with ANNALS_UPDATE_LOCK=1, and commit \
             the lock file.",
        );
    }
    text
}

/// The lines of both texts, those that only one of them has marked with `-` and `+`.
fn diff<'a>(old: &'a str, new: &'a str) -> Vec<(char, &'a str)> {
    let (old, new): (Vec<_>, Vec<_>) = (old.lines().collect(), new.lines().collect());
    // The length of the longest common rest, from each pair of lines on.
    let mut common = vec![vec![0_usize; new.len() + 1]; old.len() + 1];
    for i in (0..old.len()).rev() {
        for j in (0..new.len()).rev() {
            common[i][j] = if old[i] == new[j] {
                common[i + 1][j + 1] + 1
            } else {
                common[i + 1][j].max(common[i][j + 1])
            };
        }
    }
    let (mut i, mut j) = (0, 0);
    let mut lines = Vec::new();
    while i < old.len() || j < new.len() {
        if i < old.len() && j < new.len() && old[i] == new[j] {
            lines.push((' ', old[i]));
            (i, j) = (i + 1, j + 1);
        } else if j == new.len() || (i < old.len() && common[i + 1][j] >= common[i][j + 1]) {
            lines.push(('-', old[i]));
            i += 1;
        } else {
            lines.push(('+', new[j]));
            j += 1;
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_difference_is_as_short_as_can_be() {
        let lines = diff("a\nb\nc\nd", "a\nc\ne\nd\nf");
        let text: String = lines.iter().map(|(sign, line)| format!("{sign}{line}")).collect();
        assert_eq!(text, " a-b c+e d+f");
        assert_eq!(diff("", "a"), [('+', "a")]);
        assert_eq!(diff("a", ""), [('-', "a")]);
    }
}
