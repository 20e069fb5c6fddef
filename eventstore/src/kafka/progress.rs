//! What a program can see of a running publisher.

use tokio::sync::watch;

use crate::ids::Position;

/// How far a publisher has come, and what it is doing.
///
/// Get it from [`Publisher::progress`](super::Publisher::progress).
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Progress {
    /// Every event up to here has been acknowledged by the broker, as far as this publisher knows:
    /// the position of the checkpoint, from this process or from another that publishes.
    pub position: Position,
    /// How many events the broker has acknowledged to this publisher, repeats included.
    pub published: u64,
    /// What it is doing.
    pub state: State,
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
    /// It was interrupted and starts over from its checkpoint after a pause: the database failed,
    /// or the broker failed a delivery.
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
        let start = Progress { position: Position::START, published: 0, state: State::Standby };
        Self(watch::Sender::new(start))
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
                (_, State::BrokerUnreachable { reason }) => {
                    tracing::warn!(%reason, "Kafka does not answer; publishing waits for it");
                }
                (State::BrokerUnreachable { .. }, State::Publishing) => {
                    tracing::info!("Kafka answers again");
                }
                (_, State::Interrupted { reason }) => {
                    tracing::warn!(%reason, "publishing starts over from its checkpoint");
                }
                (_, state) => tracing::debug!(?state, "publisher"),
            }
            progress.state = state;
            true
        });
    }

    pub(super) fn position(&self, position: Position) {
        self.0.send_if_modified(|progress| {
            let moved = progress.position != position;
            progress.position = position;
            moved
        });
    }

    pub(super) fn published(&self, events: usize, position: Position) {
        self.0.send_modify(|progress| {
            progress.published += events as u64;
            progress.position = position;
        });
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
}
