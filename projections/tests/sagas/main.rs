//! Sagas against the real PostgreSQL: whatever is killed, paused or repeated, each is done once, or undone.
#![allow(clippy::unwrap_used, reason = "tests")]

mod asked;
mod booking;
mod breakers;
mod calls;
mod chaos;
mod disturbed;
mod inputs;
mod processes;
mod support;
mod timers;
