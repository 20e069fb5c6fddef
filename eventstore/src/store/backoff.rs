//! How long to wait before a decision is made again.

use std::time::Duration;

use crate::backoff::Waits;

/// The random times to wait between so many attempts. They grow, so that those who contend for a stream
/// drift apart, and stay short, for an attempt does not take long.
pub(super) fn delays(attempts: usize) -> impl Iterator<Item = Duration> + Send {
    Waits::full(Duration::from_millis(1), Duration::from_millis(50)).take(attempts - 1)
}
