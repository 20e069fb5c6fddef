//! Finding the event that makes a batch fail as a whole. Pure.

use annals_eventstore::Position;

/// Halves of the batch that failed are tried, and halves of these, until the event that fails is alone.
#[derive(Debug)]
pub(super) struct Search {
    /// It is at or below this position.
    up_to: Position,
    size: usize,
}

impl Search {
    pub(super) fn none() -> Self {
        Self { up_to: Position::START, size: 0 }
    }

    /// How many events to take at a time after a position: `usual`, or fewer if it is searched there.
    pub(super) fn limit(&self, after: Position, usual: usize) -> usize {
        if after < self.up_to { self.size.min(usual) } else { usual }
    }

    /// A batch of so many events, more than one, that reaches up to a position, failed.
    pub(super) fn narrow(&mut self, events: usize, to: Position) {
        *self = Self { up_to: to, size: (events / 2).max(1) };
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn it_comes_down_to_the_event_that_fails_within_few_steps(
            events in 1_usize..5000,
            culprit in any::<prop::sample::Index>(),
        ) {
            let culprit = culprit.index(events) + 1;
            let (mut search, mut done, mut tries) = (Search::none(), 0, 0);
            loop {
                tries += 1;
                let taken = search.limit(Position::new(done as i64), 2000).min(events - done);
                let to = done + taken;
                if !(done + 1..=to).contains(&culprit) {
                    done = to;
                } else if taken > 1 {
                    search.narrow(taken, Position::new(to as i64));
                } else {
                    break;
                }
            }
            prop_assert_eq!(done + 1, culprit);
            // Twice for each halving, and what lies before the batch.
            prop_assert!(tries <= 2 * 12 + 3, "{} tries", tries);
        }
    }
}
