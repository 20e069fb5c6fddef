//! What a live read model and its readers share.

use std::{sync::Arc, time::Duration};

use annals_eventstore::Position;
use tokio::sync::{broadcast, watch};

use super::changes::{Message, RowChange};
use crate::{
    error::Error,
    read_model::ReadModel,
    rows::{Batch, Rows},
};

/// Rows of a live read model as of one position.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Cut<R> {
    /// Everything at or below this position is in the rows, and nothing above it.
    pub position: Position,
    /// The rows, in no order.
    pub rows: Vec<R>,
}

pub(super) struct State<R: ReadModel> {
    pub(super) rows: Rows<R>,
    pub(super) position: Position,
    end: Option<End>,
}

/// Why it no longer follows the log.
#[derive(Clone)]
pub(super) enum End {
    /// It was told to.
    Told,
    Failed(Arc<Error>),
    /// The task is gone: a panic in it, or the end of the runtime.
    Died,
}

impl<R: ReadModel> State<R> {
    pub(super) fn cut(&self, mut wanted: impl FnMut(&R) -> bool) -> Cut<R> {
        let rows = self.rows.iter().filter(|row| wanted(row)).cloned().collect();
        Cut { position: self.position, rows }
    }

    /// The failure of whoever asks for more after the end.
    fn stopped(&self) -> Option<Error> {
        self.end.as_ref().map(|end| end.error::<R>(self.position))
    }
}

impl End {
    pub(super) fn error<R: ReadModel>(&self, position: Position) -> Error {
        let source = match self {
            Self::Failed(error) => Some(error.clone()),
            Self::Told | Self::Died => None,
        };
        Error::Stopped { projection: R::TABLE, position, source }
    }
}

/// The rows behind a lock that is held for writing only while a batch is taken in.
pub(super) struct Shared<R: ReadModel> {
    /// Its lock is the rows' lock; it wakes those who wait for a position.
    state: watch::Sender<State<R>>,
    changes: broadcast::Sender<Message<R>>,
}

impl<R: ReadModel> Shared<R> {
    pub(super) fn new(rows: Vec<R>, position: Position, buffer: usize) -> Self {
        let rows = rows.into_iter().collect();
        let state = watch::Sender::new(State { rows, position, end: None });
        Self { state, changes: broadcast::Sender::new(buffer) }
    }

    /// Looks at the rows, whatever has happened.
    pub(super) fn look<T>(&self, look: impl FnOnce(&State<R>) -> T) -> T {
        look(&self.state.borrow())
    }

    /// Looks at the rows of one that follows the log.
    pub(super) fn read<T>(&self, read: impl FnOnce(&State<R>) -> T) -> Result<T, Error> {
        self.look(|state| state.stopped().map_or_else(|| Ok(read(state)), Err))
    }

    pub(super) fn subscribe(&self) -> broadcast::Receiver<Message<R>> {
        self.changes.subscribe()
    }

    /// Begins after a position.
    pub(super) fn begin(&self, position: Position) {
        self.state.send_modify(|state| state.position = position);
    }

    /// Takes in a batch as a whole.
    pub(super) fn merge(&self, batch: Batch<R>, to: Position) {
        self.state.send_if_modified(|state| {
            let is_told = self.changes.receiver_count() > 0;
            state.rows.merge(batch, |(key, before, after, position)| {
                if is_told {
                    let (key, after) = (key.clone(), after.cloned());
                    let change = RowChange { key, before, after, position };
                    // Nobody may be listening any more.
                    let _ = self.changes.send(Message::Changed(change));
                }
            });
            std::mem::replace(&mut state.position, to) != to
        });
    }

    /// Ends it, unless it has ended.
    pub(super) fn end(&self, end: End) {
        self.state.send_modify(|state| {
            if state.end.is_none() {
                let _ = self.changes.send(Message::Ended(state.position, end.clone()));
                state.end = Some(end);
            }
        });
    }

    pub(super) async fn wait_for(&self, needed: Position, timeout: Duration) -> Result<(), Error> {
        let mut state = self.state.subscribe();
        let there = state.wait_for(|state| state.position >= needed || state.end.is_some());
        // Either way, what counts is where it is now.
        drop(tokio::time::timeout(timeout, there).await);
        self.look(|state| match state.stopped() {
            _ if state.position >= needed => Ok(()),
            Some(stopped) => Err(stopped),
            None => Err(Error::TimedOut {
                projection: R::TABLE,
                reached: state.position,
                needed,
                waited: timeout,
            }),
        })
    }

    /// Waits for the end; fails unless it was told to.
    pub(super) async fn ended(&self) -> Result<(), Error> {
        // The sender is here, so there is an end to wait for.
        drop(self.state.subscribe().wait_for(|state| state.end.is_some()).await);
        self.look(|state| match state.end {
            Some(End::Told) => Ok(()),
            _ => state.stopped().map_or(Ok(()), Err),
        })
    }
}
