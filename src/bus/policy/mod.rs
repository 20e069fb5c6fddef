//! The policies of a bus, each in a file of its own.

mod breaker;
mod bulkhead;
mod idempotency;
mod load_shed;
mod rate_limit;
mod retry;
#[cfg(test)]
pub(super) mod testing;
mod timeout;
mod trace;

pub use self::{
    breaker::Breaking,
    bulkhead::Bulkhead,
    idempotency::{Idempotency, Keys},
    load_shed::LoadShed,
    rate_limit::{OnLimit, RateLimit},
    retry::Retry,
    timeout::Timeout,
    trace::Trace,
};
