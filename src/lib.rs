#![doc = include_str!("../README.md")]

#[cfg(feature = "cli")]
pub mod cli;

pub use annals_eventstore::*;
pub use annals_projections::*;

/// Given, when, then: tests of aggregates and read models without a database.
pub mod testkit {
    pub use annals_eventstore::testkit::*;
    pub use annals_projections::testkit::*;
}

/// What the derive macros' output refers to. Not public API.
#[doc(hidden)]
pub mod __private {
    pub use annals_eventstore::__private::*;
    pub use annals_projections::__private::*;
}

// The programs in the guide are compiled as tests.
#[cfg(doctest)]
#[doc = include_str!("../docs/guide/operations.md")]
mod guide_operations {}

#[cfg(doctest)]
#[doc = include_str!("../docs/guide/evolution.md")]
mod guide_evolution {}
#[cfg(doctest)]
#[doc = include_str!("../docs/guide/unit-of-work.md")]
mod guide_unit_of_work {}

#[cfg(doctest)]
#[doc = include_str!("../docs/guide/reading.md")]
mod guide_reading {}

#[cfg(doctest)]
#[doc = include_str!("../docs/guide/life-of-data.md")]
mod guide_life_of_data {}

#[cfg(all(doctest, feature = "cli"))]
#[doc = include_str!("../docs/guide/command-line.md")]
mod guide_command_line {}
