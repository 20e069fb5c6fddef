//! Random waits between attempts: those that failed together must not come back together.

use std::time::Duration;

use rand::Rng;

/// Longer than anybody waits, and short enough to reckon with.
const LONGEST: Duration = Duration::from_secs(365 * 24 * 3600);

/// Waits below a limit that doubles from the first to the most, without end. None is longer than its limit.
#[derive(Clone, Debug)]
pub struct Waits {
    limit: Duration,
    most: Duration,
    /// The share of the limit that each wait has at least.
    least: f64,
}

impl Waits {
    /// From nothing to the limit ("full jitter"), where trying again at once does no harm.
    pub fn full(first: Duration, most: Duration) -> Self {
        let first = first.min(LONGEST);
        Self { limit: first, most: most.clamp(first, LONGEST), least: 0.0 }
    }

    /// From half of the limit to the limit, where something has to have the time to pass.
    pub fn half(first: Duration, most: Duration) -> Self {
        Self { least: 0.5, ..Self::full(first, most) }
    }
}

impl Iterator for Waits {
    type Item = Duration;

    fn next(&mut self) -> Option<Duration> {
        let wait = self.limit.mul_f64(rand::rng().random_range(self.least..=1.0));
        self.limit = (self.limit * 2).min(self.most);
        Some(wait)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_wait_is_longer_than_its_limit_and_limits_double_up_to_the_most() {
        let (first, most) = (Duration::from_millis(100), Duration::from_millis(450));
        let limits = [100, 200, 400, 450, 450].map(Duration::from_millis);
        let mut longest = [Duration::ZERO; 5];
        let mut shortest = [Duration::MAX; 5];
        for _ in 0..400 {
            for (at, wait) in Waits::full(first, most).take(5).enumerate() {
                assert!(wait <= limits[at], "{wait:?} after {at}");
                (longest[at], shortest[at]) = (longest[at].max(wait), shortest[at].min(wait));
            }
            for (at, wait) in Waits::half(first, most).take(5).enumerate() {
                assert!(wait >= limits[at] / 2 && wait <= limits[at], "{wait:?} after {at}");
            }
        }
        for (at, limit) in limits.into_iter().enumerate() {
            // All of the range is used: one in 400 misses a tenth of it with a chance of 1e-18.
            assert!(longest[at] > limit.mul_f64(0.9), "{longest:?}");
            assert!(shortest[at] < limit.mul_f64(0.1), "{shortest:?}");
        }
    }

    #[test]
    fn the_longest_times_do_not_overflow() {
        assert_eq!(Waits::full(Duration::MAX, Duration::MAX).take(3).count(), 3);
    }
}
