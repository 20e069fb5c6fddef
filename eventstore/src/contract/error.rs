//! What can be wrong with a contract.

use std::{io, path::PathBuf};

use super::{EventKey, ParseEventKeyError};

/// A contract cannot be made, read or written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ContractError {
    /// The schema of an enum does not say what one of its variants is.
    #[error(
        "the schema of the events of {category:?} has no variant for {event_type:?}: derive \
         `JsonSchema` beside `Event`, and rename variants with #[serde(rename)] only"
    )]
    NoVariant {
        /// The category.
        category: String,
        /// The published name.
        event_type: String,
    },
    /// The event contains the whole enum of events.
    #[error("{key} contains an event of its own enum, which has no schema outside of it")]
    Recursive {
        /// The type and version.
        key: EventKey,
    },
    /// Two categories of the contract have one name.
    #[error("the category {category:?} stands in the contract twice")]
    CategoryTwice {
        /// The category.
        category: String,
    },
    /// The contract has no such category.
    #[error("the contract has no category {category:?}")]
    NoCategory {
        /// The category.
        category: String,
    },
    /// A file of the directory is not what its name says.
    #[error("{}: {reason}", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// A file's name names no event.
    #[error("{}", path.display())]
    FileName {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: ParseEventKeyError,
    },
    /// A file cannot be read or written.
    #[error("cannot {action} {}", path.display())]
    File {
        /// `read` or `write`.
        action: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// A document cannot be written as YAML.
    #[error("cannot write the document as YAML")]
    Yaml(#[from] yaml_serde::Error),
}
