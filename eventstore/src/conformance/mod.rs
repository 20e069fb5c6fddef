#![doc = include_str!("README.md")]
#![allow(clippy::unwrap_used, reason = "behaviours are tests; a panic is a failed behaviour")]

mod append;
pub mod broken;
mod cache;
mod clock;
mod close;
mod evolution;
mod execute;
pub mod history;
mod idempotency;
mod laws;
mod life;
mod life_in_time;
mod list;
mod load;
mod model;
mod options;
mod order;
mod query;
mod read;
mod snapshots;
mod stores;
mod suite;
#[doc(hidden)]
pub mod support;
mod unit;
mod verify;

pub use self::{
    stores::{InMemory, Postgres, Stores},
    suite::{Behaviour, Failure, Needs, Outcome, Report, Suite, run, suite},
};
