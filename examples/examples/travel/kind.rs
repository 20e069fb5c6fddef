//! What is reserved, and by which service.

use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What a trip needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Kind {
    Flight,
    Hotel,
    Car,
}

impl Kind {
    /// In the order in which they are reserved.
    pub(crate) const ALL: [Self; 3] = [Self::Flight, Self::Hotel, Self::Car];

    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Flight => "flight",
            Self::Hotel => "hotel",
            Self::Car => "car",
        }
    }

    /// How many travellers one reservation is for at most. Larger parties are refused, which no repetition changes.
    pub(crate) const fn most_travellers(self) -> u32 {
        match self {
            Self::Flight => 9,
            Self::Hotel => 6,
            Self::Car => 5,
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
