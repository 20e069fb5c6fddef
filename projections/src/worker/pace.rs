//! How many events to take at a time. Pure.

use std::time::Duration;

/// A transaction of this length is long enough to be worth its commit, and short enough to be waited for.
const SHORT: Duration = Duration::from_millis(150);
const LONG: Duration = Duration::from_millis(600);
const FIRST: usize = 250;
const LEAST: usize = 20;

/// The size of batches: it grows while they are done quickly, and shrinks when they are not.
#[derive(Debug)]
pub(super) struct Pace {
    size: usize,
    most: usize,
}

impl Pace {
    pub(super) fn new(most: usize) -> Self {
        Self { size: FIRST.min(most), most }
    }

    pub(super) fn size(&self) -> usize {
        self.size
    }

    /// Takes note of how long a batch took.
    pub(super) fn took(&mut self, events: usize, time: Duration) {
        if time > LONG {
            self.size = (self.size / 2).max(LEAST.min(self.most));
        } else if time < SHORT && events >= self.size {
            self.size = (self.size * 2).min(self.most);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn it_stays_within_its_bounds_and_comes_back_from_anywhere(
            most in 1_usize..5000,
            took in prop::collection::vec((0_usize..6000, 0_u64..2000), 0..60),
        ) {
            let mut pace = Pace::new(most);
            for (events, time) in took {
                pace.took(events, Duration::from_millis(time));
                prop_assert!((LEAST.min(most)..=most).contains(&pace.size()));
            }
            for _ in 0..20 {
                pace.took(pace.size(), Duration::from_millis(1));
            }
            prop_assert_eq!(pace.size(), most);
        }
    }

    #[test]
    fn it_grows_with_full_batches_that_are_quick_and_shrinks_with_slow_ones() {
        let mut pace = Pace::new(2000);
        pace.took(10, Duration::ZERO);
        assert_eq!(pace.size(), FIRST, "a batch that was not full says nothing");
        for _ in 0..9 {
            pace.took(pace.size(), Duration::from_millis(10));
        }
        assert_eq!(pace.size(), 2000);
        pace.took(2000, Duration::from_millis(300));
        assert_eq!(pace.size(), 2000);
        for _ in 0..20 {
            pace.took(pace.size(), Duration::from_secs(5));
        }
        assert_eq!(pace.size(), LEAST);
        let mut single = Pace::new(1);
        single.took(1, Duration::from_secs(5));
        assert_eq!(single.size(), 1);
    }
}
