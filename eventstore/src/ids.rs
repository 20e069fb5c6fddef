//! Names and numbers of the store: categories, streams, versions, positions.

use std::{fmt, sync::Arc};

use serde::{Deserialize, Deserializer, Serialize};

use crate::error::Error;

/// The longest stream key, in bytes.
pub const MAX_KEY_BYTES: usize = 255;
/// The longest category, in bytes.
pub const MAX_CATEGORY_BYTES: usize = 64;

/// The name of a stream: the category of its aggregate, and the aggregate's own key.
///
/// It is written `category-key`. A category is lower-case ASCII letters, digits and `_`, starting
/// with a letter, so the first `-` always ends it.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct StreamId {
    category: Arc<str>,
    key: Arc<str>,
}

impl StreamId {
    /// Names the stream of `key` in `category`.
    ///
    /// # Errors
    /// [`Error::InvalidStream`] if the category is not a valid one, or if the key is empty, longer
    /// than [`MAX_KEY_BYTES`] or holds a control character.
    pub fn new(category: impl AsRef<str>, key: impl fmt::Display) -> Result<Self, Error> {
        Self::of(category.as_ref().into(), &key.to_string())
    }

    /// The same of a category that is shared by many.
    pub(crate) fn of(category: Arc<str>, key: &str) -> Result<Self, Error> {
        let invalid = |reason: String| Error::InvalidStream {
            stream: format!("{category}-{}", key.escape_debug()),
            reason,
        };
        if let Some(reason) = invalid_category(&category) {
            return Err(invalid(reason));
        }
        if key.is_empty() {
            return Err(invalid("the key is empty".into()));
        }
        if key.len() > MAX_KEY_BYTES {
            return Err(invalid(format!(
                "the key has {} bytes; at most {MAX_KEY_BYTES} are allowed",
                key.len()
            )));
        }
        if key.chars().any(char::is_control) {
            return Err(invalid("the key holds a control character".into()));
        }
        Ok(Self { category, key: key.into() })
    }

    /// A name that the store holds already.
    pub(crate) fn stored(category: Arc<str>, key: &str) -> Self {
        Self { category, key: key.into() }
    }

    /// The category.
    pub fn category(&self) -> &str {
        &self.category
    }

    /// The key within the category.
    pub fn key(&self) -> &str {
        &self.key
    }
}

/// Says what is wrong with a category, if anything.
pub(crate) fn invalid_category(category: &str) -> Option<String> {
    let mut bytes = category.bytes();
    let starts = bytes.next().is_some_and(|b| b.is_ascii_lowercase());
    if !starts || !bytes.all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_') {
        return Some("a category is lower-case letters, digits and _, after a first letter".into());
    }
    (category.len() > MAX_CATEGORY_BYTES)
        .then(|| format!("the category is longer than {MAX_CATEGORY_BYTES} bytes"))
}

impl fmt::Display for StreamId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.category, self.key)
    }
}

impl fmt::Debug for StreamId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

macro_rules! number {
    ($(#[$doc:meta])* $name:ident, $none:ident: $none_doc:literal) => {
        $(#[$doc])*
        #[derive(
            Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize,
        )]
        #[serde(transparent)]
        pub struct $name(i64);

        impl $name {
            #[doc = $none_doc]
            pub const $none: Self = Self(0);

            /// Takes a number; a negative one counts as 0.
            pub const fn new(number: i64) -> Self {
                Self(if number < 0 { 0 } else { number })
            }

            /// The number.
            pub const fn get(self) -> i64 {
                self.0
            }

            /// The number that is `count` further on.
            #[must_use]
            pub const fn plus(self, count: usize) -> Self {
                Self(self.0.saturating_add(count as i64))
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                i64::deserialize(deserializer).map(Self::new)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

number! {
    /// The number of an event in its stream, from 1, without holes; of a stream, its last event's.
    Version, NONE: "Before the first event: the version of a stream that does not exist."
}
number! {
    /// The place of an event in the log of the whole store, from 1, rising, with holes.
    Position, START: "Before the first event."
}
