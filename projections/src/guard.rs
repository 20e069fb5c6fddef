//! A panic in the code of a read model is a failure of the event that it was given, and of no other.

use std::panic::{AssertUnwindSafe, catch_unwind};

/// Why an event could not be handled: any error.
pub type Cause = Box<dyn std::error::Error + Send + Sync>;

#[derive(Debug, thiserror::Error)]
#[error("it panicked: {0}")]
struct Panicked(String);

/// Runs what a user wrote. What it was given is thrown away if it panics, so nobody sees it half changed.
pub(crate) fn guarded<T, E: Into<Cause>>(work: impl FnOnce() -> Result<T, E>) -> Result<T, Cause> {
    match catch_unwind(AssertUnwindSafe(work)) {
        Ok(outcome) => outcome.map_err(Into::into),
        Err(payload) => Err(panicked(&*payload)),
    }
}

/// The error for the payload of a panic.
pub(crate) fn panicked(payload: &(dyn std::any::Any + Send)) -> Cause {
    let text = payload.downcast_ref::<&str>().map(ToString::to_string);
    let text = text.or_else(|| payload.downcast_ref::<String>().cloned());
    Panicked(text.unwrap_or_else(|| "with something that is no text".to_owned())).into()
}
