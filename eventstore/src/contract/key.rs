//! The names of what is published.

use std::{
    fmt::{self, Display, Formatter},
    str::FromStr,
};

/// A published type of event in one version, written `loan.submitted.v1`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub struct EventKey {
    /// The category of its streams: without dots, so that the first one ends it.
    pub category: String,
    /// The published name.
    pub event_type: String,
    /// The version of its schema, from 1.
    pub version: u32,
}

impl EventKey {
    /// Names a type of event in one version.
    pub fn new(category: impl Into<String>, event_type: impl Into<String>, version: u32) -> Self {
        Self { category: category.into(), event_type: event_type.into(), version }
    }

    /// The name of the file that holds its schema: `loan.submitted.v1.json`.
    pub fn file_name(&self) -> String {
        format!("{self}.json")
    }
}

impl Display for EventKey {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.v{}", self.category, self.event_type, self.version)
    }
}

/// A text names no published event.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} names no published event: expected a name like loan.submitted.v1")]
#[non_exhaustive]
pub struct ParseEventKeyError(pub String);

impl FromStr for EventKey {
    type Err = ParseEventKeyError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let parts = || {
            let (category, rest) = text.split_once('.')?;
            let (event_type, version) = rest.rsplit_once(".v")?;
            let version = version.parse().ok().filter(|version| *version >= 1)?;
            let key = Self::new(category, event_type, version);
            // Neither part is empty, and no number has two spellings.
            let whole = !category.is_empty() && !event_type.is_empty() && key.to_string() == text;
            whole.then_some(key)
        };
        parts().ok_or_else(|| ParseEventKeyError(text.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_reads_back() {
        for key in [
            EventKey::new("loan", "submitted", 1),
            EventKey::new("loan_a", "x.v2.y", 20),
            EventKey::new("loan", "a.v1", 3),
        ] {
            assert_eq!(key.to_string().parse(), Ok(key.clone()));
            assert_eq!(key.file_name(), format!("{key}.json"));
        }
    }

    #[test]
    fn what_is_no_name_is_refused() {
        for text in [
            "",
            "loan",
            "loan.v1",
            "loan.x",
            "loan.x.v0",
            "loan.x.v01",
            "loan..v1",
            ".x.v1",
            "loan.x.v+1",
        ] {
            let error = text.parse::<EventKey>().unwrap_err();
            assert!(error.to_string().contains("like loan.submitted.v1"), "{text}");
        }
    }
}
