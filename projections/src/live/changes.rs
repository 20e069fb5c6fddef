//! What happens to the rows of a live read model, as a stream.

use std::{
    pin::Pin,
    task::{Context, Poll},
};

use annals_eventstore::Position;
use futures::{
    Stream, StreamExt,
    stream::{self, BoxStream},
};
use tokio::sync::broadcast::{self, error::RecvError};

use super::state::End;
use crate::{error::Error, read_model::ReadModel};

/// A row of a live read model that has changed.
///
/// Batches come whole, so what several events of one batch did to a row is one change.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct RowChange<R: ReadModel> {
    /// Its key.
    pub key: R::Key,
    /// The row before; `None` if there was none.
    pub before: Option<R>,
    /// The row now; `None` if it is gone.
    pub after: Option<R>,
    /// The position of the last event that changed it.
    pub position: Position,
}

/// The changes of a live read model, in the order of their positions. Get it from
/// [`Live::subscribe`](crate::Live::subscribe).
///
/// A change that arrives is in the rows already. Who is too slow gets [`Error::Lagged`] in place of what was
/// missed, and after it the changes that are still kept. If the read model fails, the stream yields
/// [`Error::Stopped`] with the reason and ends; if it is told to stop, or dropped, the stream just ends.
pub struct Changes<R: ReadModel>(BoxStream<'static, Result<RowChange<R>, Error>>);

#[derive(Clone)]
pub(super) enum Message<R: ReadModel> {
    Changed(RowChange<R>),
    Ended(Position, End),
}

impl<R: ReadModel> Changes<R> {
    pub(super) fn of(receiver: broadcast::Receiver<Message<R>>) -> Self {
        let changes = stream::unfold(Some(receiver), |receiver| async {
            let mut receiver = receiver?;
            match receiver.recv().await {
                Ok(Message::Changed(change)) => Some((Ok(change), Some(receiver))),
                Err(RecvError::Lagged(missed)) => {
                    Some((Err(Error::Lagged { projection: R::TABLE, missed }), Some(receiver)))
                }
                Ok(Message::Ended(_, End::Told)) | Err(RecvError::Closed) => None,
                Ok(Message::Ended(position, end)) => Some((Err(end.error::<R>(position)), None)),
            }
        });
        Self(changes.boxed())
    }
}

impl<R: ReadModel> Stream for Changes<R> {
    type Item = Result<RowChange<R>, Error>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.0.poll_next_unpin(cx)
    }
}

impl<R: ReadModel> std::fmt::Debug for Changes<R> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Changes").field("projection", &R::TABLE).finish_non_exhaustive()
    }
}
