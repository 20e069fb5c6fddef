//! The read side against the real PostgreSQL: nothing is lost, repeated or misplaced, and the past
//! does not change.
#![allow(clippy::unwrap_used, reason = "tests")]

mod archive;
mod catch_up;
mod columns;
mod connections;
mod consistency;
mod evolution;
mod failures;
mod feed;
mod inline;
mod install;
mod leases;
mod live;
mod past;
mod paused;
mod restore;
mod roles;
mod rows;
mod support;
mod time_travel;
mod types;
