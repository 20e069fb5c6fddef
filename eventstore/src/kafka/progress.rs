//! What a program can see of a running publisher.

use std::time::Duration;

use chrono::{DateTime, Utc};
use tokio::sync::watch;

use crate::ids::Position;

/// How far a publisher has come, and what it is doing.
///
/// Get it from [`Publisher::progress`](super::Publisher::progress).
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Progress {
    /// Every event up to here is in the topics, as far as this publisher knows: it has put it there, or the
    /// progress topic or the checkpoint in the database says so.
    pub position: Position,
    /// The last position of the log that was safe to read when this publisher looked last.
    pub end: Position,
    /// When the first event after `position` was recorded, by the database's clock; none if there is no
    /// such event, or it is not known.
    pub behind_since: Option<DateTime<Utc>>,
    /// How many events this publisher has put into the topics, repeats included.
    pub published: u64,
    /// What it is doing.
    pub state: State,
}

impl Progress {
    /// How many events are not published yet, at most: the positions up to the end of the log. Those that
    /// rolled back appends have left count as well, and are passed at once.
    pub fn lag_events(&self) -> u64 {
        self.end.get().saturating_sub(self.position.get()).try_into().unwrap_or_default()
    }

    /// For how long the oldest event that is not published has been recorded, now, by this machine's clock.
    pub fn lag_time(&self) -> Duration {
        let age = self.behind_since.map(|since| Utc::now() - since);
        age.and_then(|age| age.to_std().ok()).unwrap_or_default()
    }
}

/// What a publisher is doing.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum State {
    /// Another publisher of the store is active; this one takes over when that one is gone.
    Standby,
    /// It is the active one and looks for the broker.
    Connecting,
    /// It is the active one and publishes, or waits for new events.
    Publishing,
    /// The broker does not answer. Publishing goes on by itself when it does again; the store is
    /// not affected.
    BrokerUnreachable {
        /// What the last attempt to reach it said.
        reason: String,
    },
    /// It is the active one, and its circuit breaker is open: the broker is left alone until a trial is due, or until what
    /// was decided by hand is lifted ([`Builder::circuit`](super::Builder::circuit)).
    CircuitOpen {
        /// What the last failure said, or that it was opened by hand.
        reason: String,
    },
    /// It was interrupted and starts over after a pause, from where it has come to: the database
    /// failed, or the broker failed a delivery or a transaction.
    Interrupted {
        /// What happened.
        reason: String,
    },
}

/// Tells what happens: to those who watch, and to the log whenever the state changes.
#[derive(Debug)]
pub(super) struct Reporter(watch::Sender<Progress>);

impl Reporter {
    pub(super) fn new() -> Self {
        Self(watch::Sender::new(Progress {
            position: Position::START,
            end: Position::START,
            behind_since: None,
            published: 0,
            state: State::Standby,
        }))
    }

    pub(super) fn subscribe(&self) -> watch::Receiver<Progress> {
        self.0.subscribe()
    }

    pub(super) fn state(&self, state: State) {
        self.0.send_if_modified(|progress| {
            if progress.state == state {
                return false;
            }
            match (&progress.state, &state) {
                // The same outage in other words.
                (State::BrokerUnreachable { .. }, State::BrokerUnreachable { reason }) => {
                    tracing::debug!(%reason, "Kafka still does not answer");
                }
                (State::CircuitOpen { .. }, State::CircuitOpen { reason }) => {
                    tracing::debug!(%reason, "the circuit is still open");
                }
                (_, State::CircuitOpen { reason }) => {
                    tracing::warn!(%reason, "the circuit is open; publishing waits");
                }
                (_, State::BrokerUnreachable { reason }) => {
                    tracing::warn!(%reason, "Kafka does not answer; publishing waits for it");
                }
                (
                    State::BrokerUnreachable { .. } | State::CircuitOpen { .. },
                    State::Publishing,
                ) => {
                    tracing::info!("Kafka answers again");
                }
                (_, State::Interrupted { reason }) => {
                    tracing::warn!(%reason, "publishing starts over");
                }
                (_, state) => tracing::debug!(?state, "publisher"),
            }
            progress.state = state;
            true
        });
    }

    /// It has come to a position, without any event.
    pub(super) fn position(&self, position: Position) {
        self.0.send_if_modified(|progress| {
            let moved = progress.position != position;
            if moved {
                // It was of what lay behind the earlier one.
                progress.behind_since = None;
            }
            progress.position = position;
            progress.end = progress.end.max(position);
            moved
        });
    }

    /// The log has come to a position.
    pub(super) fn end(&self, end: Position) {
        self.0.send_if_modified(|progress| {
            let moved = progress.end < end;
            progress.end = progress.end.max(end);
            moved
        });
    }

    /// The next event to publish was recorded then, or there is none.
    pub(super) fn behind(&self, since: Option<DateTime<Utc>>) {
        self.0.send_if_modified(|progress| {
            let changed = progress.behind_since != since;
            progress.behind_since = since;
            changed
        });
    }

    /// The first event behind a position was recorded then: it is the next one if nobody has come further.
    pub(super) fn found_behind(&self, position: Position, since: DateTime<Utc>) {
        self.0.send_if_modified(|progress| {
            let is_next = progress.position == position && progress.behind_since.is_none();
            if is_next {
                progress.behind_since = Some(since);
            }
            is_next
        });
    }

    /// It has come to a position, with so many events.
    pub(super) fn published(&self, events: usize, position: Position) {
        self.0.send_modify(|progress| {
            progress.published += events as u64;
            progress.position = position;
            progress.end = progress.end.max(position);
            progress.behind_since = None;
        });
    }

    /// What it is now.
    pub(super) fn now(&self) -> Progress {
        self.0.borrow().clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_changes_are_told() {
        let reporter = Reporter::new();
        let mut progress = reporter.subscribe();
        reporter.state(State::Standby);
        reporter.position(Position::START);
        assert!(!progress.has_changed().unwrap());
        reporter.state(State::Publishing);
        assert!(progress.has_changed().unwrap());
        assert_eq!(progress.borrow_and_update().state, State::Publishing);
        reporter.published(3, Position::new(9));
        let now = progress.borrow_and_update().clone();
        assert_eq!((now.published, now.position), (3, Position::new(9)));
    }

    #[test]
    fn the_lag_is_what_lies_between_the_position_and_the_end() {
        let reporter = Reporter::new();
        reporter.end(Position::new(12));
        reporter.position(Position::new(2));
        reporter.behind(Some(Utc::now() - Duration::from_secs(60)));
        let progress = reporter.now();
        assert_eq!(progress.lag_events(), 10);
        let late = progress.lag_time().as_secs();
        assert!((60..70).contains(&late), "{late}");
        reporter.published(3, Position::new(15));
        let progress = reporter.now();
        assert_eq!((progress.lag_events(), progress.lag_time()), (0, Duration::ZERO));
    }
}
