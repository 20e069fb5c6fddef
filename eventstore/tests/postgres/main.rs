//! What only the store on PostgreSQL can get wrong: the database around it, and losing it.
#![allow(clippy::unwrap_used, reason = "these are tests")]

mod append;
mod connect;
mod immutable;
mod killed;
mod life;
mod lost_answers;
mod position_at;
mod reading;
mod retention;
mod schema;
#[path = "../support/mod.rs"]
mod support;
