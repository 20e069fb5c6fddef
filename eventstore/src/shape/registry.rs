//! The shapes of a program's events, and whether they are still those of the lock file.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    path::Path,
};

use super::{LockError, ShapeChange, ShapeKey, ShapeText, lock::Lock};
use crate::{
    aggregate::Aggregate,
    event::{Event, RetiredType},
};

/// The shapes of the events of a program, to be held against a lock file.
///
/// The lock file holds the shape of every stored type at every version. It is committed, and a test
/// holds that the code still stores what the file says:
///
/// ```
/// # use annals_eventstore::{Aggregate, Apply, Event};
/// # use serde::{Deserialize, Serialize};
/// # #[derive(Event, Serialize, Deserialize)]
/// # enum AccountEvent { Deposited { amount: i64 } }
/// # #[derive(Aggregate, Default)]
/// # #[aggregate(category = "account", event = AccountEvent)]
/// # struct Account;
/// # impl Apply<AccountEvent> for Account { fn apply(&mut self, _: &AccountEvent) {} }
/// use annals_eventstore::EventShapes;
///
/// // A #[test]:
/// fn stored_events_keep_their_shapes() {
///     EventShapes::new().aggregate::<Account>().assert_locked("events.lock");
/// }
/// # let path = std::env::temp_dir().join(format!("annals-{}.lock", std::process::id()));
/// # EventShapes::new().aggregate::<Account>().write(&path)?;
/// # EventShapes::new().aggregate::<Account>().assert_locked(&path);
/// # std::fs::remove_file(path)?;
/// # Ok::<_, Box<dyn std::error::Error>>(())
/// ```
///
/// - A shape that changed while its version did not is an error, with the difference.
/// - A type that is gone, without being dropped, split, or the alias of another, is an error too.
/// - A new type or version makes the file outdated: `ANNALS_UPDATE_LOCK=1 cargo test` adds it. Versions
///   that are in the file stay in it.
///
/// Types inside of events that do not implement [`Shape`](trait@crate::Shape) are not looked into. The
/// lock file names them.
#[derive(Clone, Debug, Default)]
pub struct EventShapes(BTreeMap<&'static str, Category>);

/// The events of one category.
#[derive(Clone, Debug, Default)]
struct Category {
    kinds: Vec<Kind>,
    retired: Vec<RetiredType>,
}

/// A kind of event as the code stores it.
#[derive(Clone, Debug)]
struct Kind {
    name: &'static str,
    aliases: &'static [&'static str],
    version: u32,
    shape: String,
    opaque: Vec<String>,
}

impl EventShapes {
    /// No events.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds the events of an aggregate.
    #[must_use]
    pub fn aggregate<A: Aggregate>(mut self) -> Self {
        let category = self.0.entry(A::CATEGORY).or_default();
        category.retired.extend_from_slice(A::Event::RETIRED);
        for (index, kind) in A::Event::TYPES.iter().enumerate() {
            let mut text = ShapeText::default();
            A::Event::describe(index, &mut text);
            let (shape, opaque) = text.into_parts();
            let (name, version, aliases) = (kind.name, kind.version, kind.aliases);
            category.kinds.push(Kind { name, aliases, version, shape, opaque });
        }
        self
    }

    /// The types inside of events that are not looked into, by the stored type and version that they
    /// are in. Derive [`Shape`](trait@crate::Shape) for them to have changes noticed.
    pub fn opaque(&self) -> BTreeMap<ShapeKey, Vec<String>> {
        let opaque = self.kinds().filter(|(_, kind)| !kind.opaque.is_empty());
        opaque.map(|(key, kind)| (key, kind.opaque.clone())).collect()
    }

    /// The text of a lock file that holds the shapes of today alone.
    pub fn to_lock(&self) -> String {
        self.added_to(Lock::default()).to_text(&self.notes())
    }

    /// Holds the shapes against a lock file. A file that does not exist counts as empty.
    ///
    /// # Errors
    /// [`LockError::Differs`] says what differs and what to do; other errors are about the file.
    pub fn check(&self, path: impl AsRef<Path>) -> Result<(), LockError> {
        let path = path.as_ref();
        differences(path, self.changes(&read(path)?))
    }

    /// Adds new types and versions to a lock file, or makes the file.
    ///
    /// # Errors
    /// [`LockError::Differs`] if a shape that is in the file changed or is gone: the file then stays
    /// as it is. Other errors are about the file.
    pub fn write(&self, path: impl AsRef<Path>) -> Result<(), LockError> {
        let path = path.as_ref();
        let lock = read(path)?;
        let mut changes = self.changes(&lock);
        changes.retain(|change| !change.is_addition());
        differences(path, changes)?;
        let text = self.added_to(lock).to_text(&self.notes());
        std::fs::write(path, text).map_err(failed("write", path))
    }

    /// For tests: [`check`](Self::check), or [`write`](Self::write) if the environment says
    /// `ANNALS_UPDATE_LOCK=1`. Relative paths begin at the crate's root, where tests run.
    ///
    /// # Panics
    /// If the shapes differ from the lock file, with the difference and what to do.
    #[track_caller]
    pub fn assert_locked(&self, path: impl AsRef<Path>) {
        let update = std::env::var_os("ANNALS_UPDATE_LOCK").is_some_and(|value| value == "1");
        let held = if update { self.write(path) } else { self.check(path) };
        if let Err(error) = held {
            match std::error::Error::source(&error) {
                Some(source) => panic!("{error}: {source}"),
                None => panic!("{error}"),
            }
        }
    }

    fn kinds(&self) -> impl Iterator<Item = (ShapeKey, &Kind)> {
        self.0.iter().flat_map(|(category, events)| {
            events.kinds.iter().map(|kind| {
                let (category, event_type) = ((*category).to_owned(), kind.name.to_owned());
                (ShapeKey { category, event_type, version: kind.version }, kind)
            })
        })
    }

    fn added_to(&self, mut lock: Lock) -> Lock {
        lock.0.extend(self.kinds().map(|(key, kind)| (key, kind.shape.clone())));
        lock
    }

    fn notes(&self) -> Vec<String> {
        let opaque = self.opaque();
        let lines: BTreeSet<_> = opaque
            .iter()
            .map(|(key, types)| format!("Not looked into, in [{key}]: {}", types.join(", ")))
            .collect();
        lines.into_iter().collect()
    }

    fn changes(&self, lock: &Lock) -> Vec<ShapeChange> {
        let mut changes = Vec::new();
        let mut removed = BTreeSet::new();
        for (key, locked) in &lock.0 {
            let Some(category) = self.0.get(key.category.as_str()) else {
                if removed.insert(&key.category) {
                    let category = key.category.clone();
                    changes.push(ShapeChange::CategoryRemoved { category });
                }
                continue;
            };
            changes.extend(category.change(key, locked));
        }
        let new = self.kinds().filter(|(key, _)| !lock.0.contains_key(key));
        changes.extend(new.map(|(key, _)| ShapeChange::NotLocked { key }));
        changes
    }
}

impl Category {
    /// What became of a shape that is locked.
    fn change(&self, key: &ShapeKey, locked: &str) -> Option<ShapeChange> {
        let name = key.event_type.as_str();
        let kind = self.kinds.iter().find(|kind| kind.name == name || kind.aliases.contains(&name));
        let retired = self.retired.iter().find(|retired| retired.name == name);
        let Some(now) = kind.map(|kind| kind.version).or(retired.map(|retired| retired.version))
        else {
            return Some(ShapeChange::Removed { key: key.clone() });
        };
        if key.version > now {
            return Some(ShapeChange::WentBack { key: key.clone(), now });
        }
        // An earlier name is read like the present one, so its shapes are bound as well.
        let same_version = kind.filter(|kind| kind.version == key.version)?;
        (same_version.shape != locked).then(|| ShapeChange::Changed {
            key: key.clone(),
            locked: locked.to_owned(),
            now: same_version.shape.clone(),
        })
    }
}

fn differences(path: &Path, changes: Vec<ShapeChange>) -> Result<(), LockError> {
    if changes.is_empty() {
        Ok(())
    } else {
        Err(LockError::Differs { path: path.to_owned(), changes })
    }
}

fn read(path: &Path) -> Result<Lock, LockError> {
    let text = match std::fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Lock::default()),
        Err(error) => return Err(failed("read", path)(error)),
    };
    Lock::parse(&text).map_err(|(line, reason)| LockError::Malformed {
        path: path.to_owned(),
        line,
        reason,
    })
}

fn failed(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> LockError {
    let path = path.to_owned();
    move |source| LockError::File { action, path, source }
}

#[cfg(test)]
mod tests;
