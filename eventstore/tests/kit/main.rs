//! The kit of faults: what it promises to those who test with it, and that it finds what is built carelessly.
#![allow(clippy::unwrap_used, reason = "tests")]

mod link;
mod store;
#[path = "../support/mod.rs"]
mod support;
