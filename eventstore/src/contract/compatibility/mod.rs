//! Whether a contract may follow the one that was published last.

mod compare;
mod form;
mod read;

use std::{
    fmt::{self, Display, Formatter},
    str::FromStr,
};

use serde_json::Value;

use self::compare::{Change, Finding};
use super::{Contract, EventKey, Schemas};

/// What is asked of a contract that follows a published one.
///
/// Two schemas are compared as a writer's and a reader's: the reader can read the writer's data if every
/// payload that the writer may write is valid for the reader. A writer writes the properties that its schema
/// names; a reader ignores those that its schema does not name, unless it forbids them. Consumers tell types
/// and versions apart by `ce_type`, and pass over types that they do not know.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Compatibility {
    /// A consumer with the new contract can read all that was published under the old one: each type and
    /// version that was published is still in the contract, and its new schema allows what the old one did. A
    /// breaking change takes a new version.
    #[default]
    Backward,
    /// A consumer with the old contract can read all that will be published under the new one: each type and
    /// version that was published allows no more than it did, and a new version of a type is valid for the
    /// last published one. A breaking change takes a new type.
    Forward,
    /// Both.
    Full,
    /// Nothing is asked.
    None,
}

impl Compatibility {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Backward, Self::Forward, Self::Full, Self::None];

    fn directions(self) -> &'static [Direction] {
        match self {
            Self::Backward => &[Direction::Backward],
            Self::Forward => &[Direction::Forward],
            Self::Full => &[Direction::Backward, Direction::Forward],
            Self::None => &[],
        }
    }
}

impl Display for Compatibility {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Backward => "backward",
            Self::Forward => "forward",
            Self::Full => "full",
            Self::None => "none",
        })
    }
}

impl FromStr for Compatibility {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let found = Self::ALL.into_iter().find(|compatibility| compatibility.to_string() == text);
        found.ok_or_else(|| format!("{text:?} is none of backward, forward, full, none"))
    }
}

/// Who reads whose data.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Direction {
    /// A consumer with the new contract reads what was published under the old one.
    Backward,
    /// A consumer with the old contract reads what will be published under the new one.
    Forward,
}

impl Direction {
    /// What a difference in this direction means.
    fn consequence(self) -> &'static str {
        match self {
            Self::Backward => "consumers of the new contract cannot read what was published",
            Self::Forward => {
                "consumers of the published contract cannot read what will be published"
            }
        }
    }
}

/// A difference that breaks consumers, or one of which nobody can tell whether it does.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Difference {
    /// The type and version.
    pub event: EventKey,
    /// The published version that it was compared with, if another.
    pub compared_with: Option<EventKey>,
    /// Where in the schema, as JSON pointer: the new schema, or the published one where the new one has nothing
    /// there. Empty for the whole.
    pub pointer: String,
    /// What changed, such as `type integer -> string`: first what is published, then what is new.
    pub change: String,
    /// Whose reading it breaks.
    pub direction: Direction,
    /// False if it cannot be judged.
    pub comparable: bool,
}

impl Difference {
    /// Why it breaks.
    pub fn consequence(&self) -> &'static str {
        if self.comparable {
            self.direction.consequence()
        } else {
            "it cannot be told whether consumers can read it"
        }
    }
}

impl Display for Difference {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let Self { event, compared_with, pointer, change, .. } = self;
        write!(f, "{event}")?;
        if !pointer.is_empty() {
            write!(f, " {pointer}")?;
        }
        write!(f, ": {change}")?;
        if let Some(EventKey { version, .. }) = compared_with {
            write!(f, " (against v{version})")?;
        }
        write!(f, ": {}", self.consequence())
    }
}

/// How a contract compares with the published one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Comparison {
    /// What breaks consumers.
    pub differences: Vec<Difference>,
    /// What is not published yet.
    pub additions: Vec<EventKey>,
    /// Earlier versions that the code knows of and the published contract does not have. If events of them are
    /// in the log, they are published without a schema.
    pub unknown_versions: Vec<EventKey>,
}

impl Comparison {
    /// True if nothing breaks.
    pub fn is_compatible(&self) -> bool {
        self.differences.is_empty()
    }
}

impl Contract {
    /// Holds the schemas of the code against those that were published last.
    pub fn compare(
        &self,
        current: &Schemas,
        published: &Schemas,
        compatibility: Compatibility,
    ) -> Comparison {
        let mut comparison = Comparison::default();
        let directions = compatibility.directions();
        for (key, old) in published.iter() {
            comparison.differences.extend(match current.get(key) {
                Some(new) => same_version(key, old, new, directions),
                None => Vec::from_iter(self.gone(key, current, directions)),
            });
        }
        for (key, new) in current.iter() {
            if published.get(key).is_some() {
                continue;
            }
            comparison.additions.push(key.clone());
            if let Some(last) = published.latest(&key.category, &key.event_type)
                && last.version < key.version
                && directions.contains(&Direction::Forward)
                && let Some(old) = published.get(last)
            {
                let findings = compare::compare(new, old).into_iter();
                comparison.differences.extend(findings.map(|finding| Difference {
                    compared_with: Some(last.clone()),
                    ..difference(key, Direction::Forward, finding)
                }));
            }
        }
        for key in current.0.keys() {
            let earlier = (1..key.version)
                .map(|version| EventKey { version, ..key.clone() })
                .filter(|key| published.get(key).is_none() && current.get(key).is_none());
            comparison.unknown_versions.extend(earlier);
        }
        comparison
    }

    /// What is published, and not of this version in the code.
    fn gone(
        &self,
        key: &EventKey,
        current: &Schemas,
        directions: &[Direction],
    ) -> Option<Difference> {
        let EventKey { category, event_type, version } = key;
        let now = match current.latest(category, event_type) {
            // Its schema stays in the directory, and so in the contract.
            Some(latest) if latest.version > *version => return None,
            Some(latest) => format!("v{version} -> v{} only", latest.version),
            None if self.is_retired(key) => return None,
            None if self.find(category).is_none() => "published -> no such category".to_owned(),
            None => "published -> no such type".to_owned(),
        };
        // Whoever has the old contract goes on reading what is there.
        directions.contains(&Direction::Backward).then(|| Difference {
            event: key.clone(),
            compared_with: None,
            pointer: String::new(),
            change: now,
            direction: Direction::Backward,
            comparable: true,
        })
    }
}

fn same_version(
    key: &EventKey,
    old: &Value,
    new: &Value,
    directions: &[Direction],
) -> Vec<Difference> {
    let mut differences = Vec::new();
    let notes = [("title", "ce_type"), ("x-topic", "topic")];
    for (keyword, name) in notes {
        // In any direction, somebody looks in the wrong place. A schema by other hands may not have it.
        if let (Some(&direction), Some(old)) = (directions.first(), old.get(keyword))
            && let Some(new) = new.get(keyword).filter(|new| *new != old)
        {
            let text =
                |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
            differences.push(Difference {
                event: key.clone(),
                compared_with: None,
                pointer: format!("/{keyword}"),
                change: format!("{name} {} -> {}", text(old), text(new)),
                direction,
                comparable: true,
            });
        }
    }
    for &direction in directions {
        let findings = match direction {
            Direction::Backward => compare::compare(old, new),
            Direction::Forward => compare::compare(new, old),
        };
        differences.extend(findings.into_iter().map(|finding| difference(key, direction, finding)));
    }
    differences
}

fn difference(key: &EventKey, direction: Direction, finding: Finding) -> Difference {
    let Finding { writer_at, reader_at, change } = finding;
    let (old_at, new_at) = match direction {
        Direction::Backward => (writer_at, reader_at),
        Direction::Forward => (reader_at, writer_at),
    };
    // Where one of them has less there, the other says where it is.
    let below = old_at.strip_prefix(&new_at).is_some_and(|rest| rest.starts_with('/'));
    let pointer = if below { old_at } else { new_at };
    let (change, comparable) = match change {
        Change::Differs { subject, writer, reader } => {
            let (old, new) = match direction {
                Direction::Backward => (writer, reader),
                Direction::Forward => (reader, writer),
            };
            (format!("{subject} {old} -> {new}"), true)
        }
        Change::Unknown(what) => (format!("not comparable: {what}"), false),
    };
    Difference { event: key.clone(), compared_with: None, pointer, change, direction, comparable }
}
