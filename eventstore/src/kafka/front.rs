//! How far a publisher has come, and who knows: consumers, by the progress topic, and the database, by the
//! checkpoint. Pure, but for the clock.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use super::{
    producer::Step,
    progress_record::LastEvent,
    start::{Start, Told},
};
use crate::{event::Recorded, ids::Position};

/// A stretch of the log without events to publish is told of at most this often, and where the checkpoint
/// follows the progress topic, it does so no faster.
const OFTEN: Duration = Duration::from_millis(100);

/// A part of the log.
pub(super) struct Page {
    pub(super) events: Arc<[Recorded]>,
    /// What comes after the page lies above this position.
    pub(super) end: Position,
    /// Whether more may be there already.
    pub(super) is_full: bool,
}

impl Page {
    pub(super) fn empty(end: Position) -> Self {
        Self { events: Arc::new([]), end, is_full: false }
    }

    /// Its last event, by which the log is known again.
    fn event(&self) -> Option<LastEvent> {
        self.events.last().map(|event| LastEvent::new(event.position, event.id))
    }
}

/// Where a publisher stands.
#[derive(Debug)]
pub(super) struct Front {
    position: Position,
    event: Option<LastEvent>,
    /// How far consumers know, and since when; nothing if they have to be told how far partitions go.
    told: Option<Position>,
    told_at: Option<Instant>,
    /// How far the checkpoint is, and since when.
    kept: Position,
    kept_at: Option<Instant>,
}

impl Front {
    pub(super) fn new(start: Start, checkpoint: Position) -> Self {
        let Start { position, event, told } = start;
        let told = (told == Told::All).then_some(position);
        Self { position, event, told, told_at: None, kept: checkpoint, kept_at: None }
    }

    /// Every event up to here is in the topics.
    pub(super) fn position(&self) -> Position {
        self.position
    }

    /// What to do so that it stands at the end of a page.
    pub(super) fn step(&self, page: &Page) -> Step {
        Step {
            events: page.events.clone(),
            to: page.end,
            event: page.event().or(self.event),
            told: if self.told.is_some() { Told::All } else { Told::Less },
        }
    }

    /// It stands at the end of a page.
    pub(super) fn pass(&mut self, page: &Page) {
        self.position = page.end;
        self.event = page.event().or(self.event);
    }

    /// Consumers know where it stands.
    pub(super) fn told(&mut self) {
        self.told = Some(self.position);
        self.told_at = Some(Instant::now());
    }

    /// The checkpoint says where it stands.
    pub(super) fn kept(&mut self) {
        self.kept = self.position;
        self.kept_at = Some(Instant::now());
    }

    pub(super) fn is_told(&self) -> bool {
        self.told == Some(self.position)
    }

    pub(super) fn is_kept(&self) -> bool {
        self.kept == self.position
    }

    /// Whether it is time to tell consumers.
    pub(super) fn is_due_to_tell(&self) -> bool {
        !self.is_told() && left(self.told_at).is_zero()
    }

    /// Whether it is time to move the checkpoint.
    pub(super) fn is_due_to_keep(&self) -> bool {
        !self.is_kept() && left(self.kept_at).is_zero()
    }

    /// When the next of both is due; never, if both know.
    pub(super) fn due_in(&self) -> Duration {
        let tell = if self.is_told() { Duration::MAX } else { left(self.told_at) };
        let keep = if self.is_kept() { Duration::MAX } else { left(self.kept_at) };
        tell.min(keep)
    }
}

/// How much is left of the time for which nothing is said again.
fn left(since: Option<Instant>) -> Duration {
    since.map_or(Duration::ZERO, |since| OFTEN.saturating_sub(since.elapsed()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn front(position: i64, told: Told, checkpoint: i64) -> Front {
        let start = Start { position: Position::new(position), event: None, told };
        Front::new(start, Position::new(checkpoint))
    }

    #[test]
    fn one_that_stands_where_all_know_has_nothing_to_do() {
        let front = front(5, Told::All, 5);
        assert!(front.is_told() && front.is_kept());
        assert!(!front.is_due_to_tell() && !front.is_due_to_keep());
        assert_eq!(front.due_in(), Duration::MAX);
    }

    #[test]
    fn what_is_not_known_is_told_at_once_and_then_not_too_often() {
        let mut front = front(5, Told::Less, 3);
        assert!(front.is_due_to_tell() && front.is_due_to_keep());
        assert_eq!(front.step(&Page::empty(Position::new(5))).told, Told::Less);
        front.told();
        front.kept();
        front.pass(&Page::empty(Position::new(6)));
        assert!(!front.is_told() && !front.is_kept());
        assert!(!front.is_due_to_tell() && !front.is_due_to_keep());
        assert!(front.due_in() <= OFTEN);
        assert_eq!(front.step(&Page::empty(Position::new(6))).told, Told::All);
        std::thread::sleep(OFTEN);
        assert!(front.is_due_to_tell() && front.is_due_to_keep());
        assert_eq!(front.due_in(), Duration::ZERO);
    }
}
