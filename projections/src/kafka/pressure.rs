//! When to stop reading, and which partitions to pause. Pure.
//!
//! A reader that takes nothing must not make memory grow, and one partition that is far ahead of another
//! must not fill it up while the other one is waited for.

use std::time::{Duration, Instant};

use super::subscription::Inner;

/// Pausing drops what the client has fetched ahead, so a short wait is spent without.
const PATIENCE: Duration = Duration::from_secs(1);
/// So many records that are no events may wait to be told.
const UNDECODABLE: usize = 16;

/// What to do next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Action {
    Read,
    /// Wait without reading.
    Wait,
    /// All is paused: read what the client has to say, which are no records.
    Pause,
}

/// Which lanes are paused, and which are to be.
#[derive(Debug)]
pub(super) struct Pressure {
    limit: usize,
    full_since: Option<Instant>,
    paused: Vec<bool>,
    wanted: Vec<bool>,
}

/// How full the merge is.
#[derive(Clone, Debug)]
pub(super) struct Fill<'a> {
    /// There is something to be taken, so it is the reader who is waited for.
    pub(super) is_ready: bool,
    pub(super) undecodable: usize,
    /// The bytes that wait, lane by lane.
    pub(super) lanes: &'a [usize],
}

impl Pressure {
    /// Up to so many bytes may wait.
    pub(super) fn new(limit: usize) -> Self {
        Self { limit, full_since: None, paused: Vec::new(), wanted: Vec::new() }
    }

    /// Nothing is paused any more, of so many lanes.
    pub(super) fn restart(&mut self, lanes: usize) {
        (self.paused, self.wanted) = (vec![false; lanes], vec![false; lanes]);
        self.full_since = None;
    }

    pub(super) fn look(&mut self, inner: &Inner, now: Instant) -> Action {
        let merge = &inner.merge;
        let lanes: Vec<_> = (0..merge.lanes()).map(|lane| merge.lane_bytes(lane)).collect();
        let (is_ready, undecodable) = (inner.is_ready(), inner.undecodable.len());
        self.decide(&Fill { is_ready, undecodable, lanes: &lanes }, now)
    }

    fn decide(&mut self, fill: &Fill<'_>, now: Instant) -> Action {
        let Fill { is_ready, undecodable, lanes } = fill;
        let waiting: usize = lanes.iter().sum();
        let all_paused = !self.paused.is_empty() && self.paused.iter().all(|paused| *paused);
        // Once paused, it is worth resuming only if there is room for some time.
        let limit = if all_paused { self.limit / 2 } else { self.limit };
        if *is_ready && (waiting >= limit || *undecodable >= UNDECODABLE) {
            let since = *self.full_since.get_or_insert(now);
            if now.duration_since(since) < PATIENCE {
                return Action::Wait;
            }
            self.wanted.fill(true);
            return Action::Pause;
        }
        self.full_since = None;
        // A lane that is ahead of the others waits for them; the one that they wait for never does, since
        // all that it holds can be taken.
        let share = self.limit / lanes.len().max(1);
        for (lane, bytes) in lanes.iter().enumerate() {
            let limit = if self.paused[lane] { share / 2 } else { share };
            self.wanted[lane] = *bytes > 0 && *bytes >= limit;
        }
        Action::Read
    }

    /// Whether a lane is paused.
    pub(super) fn is_any_paused(&self) -> bool {
        self.paused.iter().any(|paused| *paused)
    }

    /// Which lanes are to be paused now, and which resumed. It counts as done.
    pub(super) fn changes(&mut self) -> (Vec<usize>, Vec<usize>) {
        let (mut pause, mut resume) = (Vec::new(), Vec::new());
        for (lane, (paused, wanted)) in self.paused.iter_mut().zip(&self.wanted).enumerate() {
            if paused != wanted {
                if *wanted {
                    pause.push(lane)
                } else {
                    resume.push(lane)
                }
                *paused = *wanted;
            }
        }
        (pause, resume)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pressure() -> Pressure {
        let mut pressure = Pressure::new(100);
        pressure.restart(2);
        pressure
    }

    fn fill(is_ready: bool, lanes: &[usize]) -> Fill<'_> {
        Fill { is_ready, undecodable: 0, lanes }
    }

    #[test]
    fn a_slow_reader_is_waited_for_and_then_all_is_paused() {
        let (mut pressure, start) = (pressure(), Instant::now());
        let later = |millis| start + Duration::from_millis(millis);
        assert_eq!(pressure.decide(&fill(true, &[40, 40]), start), Action::Read);
        assert_eq!(pressure.decide(&fill(true, &[60, 45]), start), Action::Wait);
        assert_eq!(pressure.changes(), (vec![], vec![]));
        assert_eq!(pressure.decide(&fill(true, &[60, 45]), later(500)), Action::Wait);
        assert_eq!(pressure.decide(&fill(true, &[60, 45]), later(1001)), Action::Pause);
        assert_eq!(pressure.changes(), (vec![0, 1], vec![]));
        assert_eq!(pressure.decide(&fill(true, &[50, 45]), later(1100)), Action::Pause);
        assert_eq!(pressure.changes(), (vec![], vec![]));
        assert_eq!(pressure.decide(&fill(true, &[20, 20]), later(1200)), Action::Read);
        assert_eq!(pressure.changes(), (vec![], vec![0, 1]));
    }

    #[test]
    fn a_lane_that_is_ahead_waits_for_the_others() {
        let (mut pressure, now) = (pressure(), Instant::now());
        // Nothing can be taken before there is something in the other one, however much there is.
        assert_eq!(pressure.decide(&fill(false, &[300, 0]), now), Action::Read);
        assert_eq!(pressure.changes(), (vec![0], vec![]));
        assert_eq!(pressure.decide(&fill(true, &[40, 10]), now), Action::Read);
        assert_eq!(pressure.changes(), (vec![], vec![]), "it is not resumed for a little");
        assert_eq!(pressure.decide(&fill(true, &[20, 10]), now), Action::Read);
        assert_eq!(pressure.changes(), (vec![], vec![0]));
    }

    #[test]
    fn records_that_are_no_events_do_not_pile_up() {
        let (mut pressure, now) = (pressure(), Instant::now());
        let fill = Fill { is_ready: true, undecodable: 16, lanes: &[0, 0] };
        assert_eq!(pressure.decide(&fill, now), Action::Wait);
    }
}
