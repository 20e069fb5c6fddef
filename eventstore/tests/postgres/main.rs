//! What only the store on PostgreSQL can get wrong: the database around it, and losing it.
#![allow(clippy::unwrap_used, reason = "these are tests")]

mod append;
mod cache;
mod closing;
mod connect;
mod constant_memory;
mod frozen;
mod immutable;
mod killed;
mod life;
mod limits;
mod lost_answers;
mod pooled;
mod pools;
mod position_at;
mod private_server;
mod reading;
mod retention;
mod schema;
mod snapshots;
#[path = "../support/mod.rs"]
mod support;
mod undone;
mod unit;
mod verify;
