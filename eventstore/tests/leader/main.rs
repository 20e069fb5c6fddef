//! Leader election against the real PostgreSQL: leaders that die, are stopped, are cut off or resign, and never two of
//! them whose writes count.
#![allow(clippy::unwrap_used, reason = "these are tests")]

mod cut_off;
mod holding;
mod processes;
#[path = "../support/mod.rs"]
mod support;
mod takeover;
mod writing;
