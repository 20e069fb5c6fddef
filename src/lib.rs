#![doc = include_str!("../README.md")]

// The derive macros name this crate by its absolute path, also in its own tests.
#[cfg(test)]
extern crate self as annals;

#[cfg(feature = "bus")]
pub mod bus;
#[cfg(feature = "cli")]
pub mod cli;
#[cfg(feature = "gateway")]
pub mod gateway;
#[cfg(any(feature = "gateway", feature = "prometheus"))]
pub mod health;
pub mod metrics;
#[cfg(any(feature = "otlp", feature = "prometheus"))]
pub mod telemetry;

pub use annals_eventstore::*;
pub use annals_projections::*;

/// Publishing the log to Kafka, and reading it from there.
#[cfg(feature = "kafka")]
pub mod kafka {
    pub use annals_eventstore::kafka::*;
    pub use annals_projections::kafka::*;
}

/// Given, when, then: tests of aggregates and read models without a database.
pub mod testkit {
    pub use annals_eventstore::testkit::*;
    pub use annals_projections::testkit::*;

    /// Faults on purpose: does what was built on a store come out exact when everything around it fails?
    #[cfg(feature = "faults")]
    pub mod faults {
        pub use annals_eventstore::testkit::faults::*;
        pub use annals_projections::testkit::faults::*;
    }
}

/// What the derive macros' output refers to. Not public API.
#[doc(hidden)]
pub mod __private {
    pub use annals_eventstore::__private::*;
    pub use annals_projections::__private::*;
}

// The programs in the guide are compiled as tests.
#[cfg(doctest)]
mod guide {
    #[cfg(feature = "bus")]
    #[doc = include_str!("../docs/guide/command-bus.md")]
    mod command_bus {}

    #[cfg(feature = "cli")]
    #[doc = include_str!("../docs/guide/command-line.md")]
    mod command_line {}

    #[cfg(feature = "contracts")]
    #[doc = include_str!("../docs/guide/contracts.md")]
    mod contracts {}

    #[doc = include_str!("../docs/guide/evolution.md")]
    mod evolution {}

    #[cfg(feature = "gateway")]
    #[doc = include_str!("../docs/guide/gateway.md")]
    mod gateway {}

    #[cfg(feature = "kafka")]
    #[doc = include_str!("../docs/guide/kafka.md")]
    mod kafka {}

    #[doc = include_str!("../docs/guide/life-of-data.md")]
    mod life_of_data {}

    #[doc = include_str!("../docs/guide/operations.md")]
    mod operations {}

    #[doc = include_str!("../docs/guide/patterns.md")]
    mod patterns {}

    #[doc = include_str!("../docs/guide/projections.md")]
    mod projections {}

    #[doc = include_str!("../docs/guide/read-models.md")]
    mod read_models {}

    #[doc = include_str!("../docs/guide/reading.md")]
    mod reading {}

    #[doc = include_str!("../docs/guide/rebuild.md")]
    mod rebuild {}

    #[doc = include_str!("../docs/guide/roles.md")]
    mod roles {}

    #[doc = include_str!("../docs/guide/sagas.md")]
    mod sagas {}

    #[doc = include_str!("../docs/guide/snapshots.md")]
    mod snapshots {}

    #[cfg(feature = "faults")]
    #[doc = include_str!("../docs/guide/testing.md")]
    mod testing {}

    #[doc = include_str!("../docs/guide/unit-of-work.md")]
    mod unit_of_work {}
}
