//! The read side against the real PostgreSQL: nothing is lost, repeated or misplaced, and the past
//! does not change.
#![allow(clippy::unwrap_used, reason = "tests")]

mod archive;
mod breaker_by_hand;
mod bulkhead;
mod cached;
mod catch_up;
mod chaos;
mod columns;
mod connections;
mod consistency;
mod disturbed;
mod evolution;
mod failures;
mod feed;
mod forgetting;
mod inline;
mod install;
mod leases;
mod live;
mod parking;
mod past;
mod paused;
mod pausing;
mod reactor_breakers;
mod reactors;
mod rebuild;
mod replay;
mod restore;
mod roles;
mod rows;
mod same_cut;
mod shared_feed;
mod slices;
mod sql;
mod support;
mod time_travel;
mod types;
