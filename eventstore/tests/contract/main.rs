//! Contracts: schemas are what is published, documents follow their standards, and what is called compatible
//! is.

#![allow(clippy::unwrap_used)] // A helper that fails fails its test.

mod compatibility;
mod directory;
mod documents;
mod property;
mod schemas;
mod support;
