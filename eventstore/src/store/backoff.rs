//! How long to wait before a decision is made again.

use std::time::Duration;

use backon::{BackoffBuilder, ExponentialBackoff, ExponentialBuilder};

/// The random times to wait between so many attempts. They grow, so that those who contend for a stream
/// drift apart, and stay short, for an attempt does not take long.
pub(super) fn delays(attempts: usize) -> ExponentialBackoff {
    ExponentialBuilder::default()
        .with_min_delay(Duration::from_millis(1))
        .with_max_delay(Duration::from_millis(50))
        .with_max_times(attempts - 1)
        .with_jitter()
        .build()
}
