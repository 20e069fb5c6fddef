//! What a worker feeds: something that takes batches of events and moves a checkpoint with them.

use std::time::Duration;

use annals_eventstore::{
    Error as StoreError, Position, Recorded, StreamId, Version,
    postgres::{Checkpoint, Client, Database, GenericClient, OwnedTransaction, Prepared},
};
use async_trait::async_trait;

use crate::error::Error;

/// Events to be dealt with at once, in the order of their positions.
#[derive(Clone, Debug)]
pub(crate) struct Batch {
    pub(crate) events: Vec<Recorded>,
    /// Where the checkpoint stands afterwards.
    pub(crate) to: Position,
    /// There is more behind it already.
    pub(crate) more: bool,
    pub(crate) late: Option<Late>,
}

/// Events of one stream that were parked, and come after others that are behind them in the log.
#[derive(Clone, Debug)]
pub(crate) struct Late {
    /// The name of the projection's checkpoint, under which the stream is parked.
    pub(crate) projection: String,
    pub(crate) stream: StreamId,
    /// At which position they have their effect.
    pub(crate) at: Position,
    /// The position and the version from which on it stays parked, if it does.
    pub(crate) rest: Option<(Position, Version)>,
}

impl Batch {
    pub(crate) fn new(events: Vec<Recorded>, to: Position, more: bool) -> Self {
        Self { events, to, more, late: None }
    }
}

/// What a worker feeds.
#[async_trait]
pub(crate) trait Target: Send + Sync {
    /// Makes sure that all it needs is there. Called before the first batch, and after each failure:
    /// what it keeps in memory does not count any more.
    async fn prepare(&mut self) -> Result<(), Error>;

    /// Deals with a batch, and moves the checkpoint in the transaction that writes what came of it.
    ///
    /// Of an event that fails by itself, [`Error::Event`] tells. All events below it are dealt with then,
    /// and the checkpoint stands before it; of late events, none is.
    async fn apply(&mut self, batch: Batch, checkpoint: &mut Checkpoint) -> Result<(), Error>;
}

/// Opens the transaction of a batch. Nothing is written before [`enter`] has returned.
///
/// It does not wait for the disk when it commits: a crash of the server may undo it, and with it the
/// checkpoint, so the batch is then done again. No other transaction rests on it that the crash would keep,
/// since the log of the database is one.
pub(crate) async fn open(
    database: &Database,
    patience: Duration,
) -> Result<OwnedTransaction, Error> {
    let patience = patience.as_millis().clamp(1000, i32::MAX as u128);
    // A worker that is paused here keeps the checkpoint locked, until the database ends it.
    let settings = format!(
        "set local synchronous_commit = off; \
         set local idle_in_transaction_session_timeout = {patience}"
    );
    Ok(database.begin_with(&settings).await?)
}

/// Moves the checkpoint, so that a worker that was replaced writes nothing, and takes late events from those
/// that are parked. What is polled after it comes behind it.
pub(crate) async fn enter(
    database: &Database,
    client: &Client,
    (checkpoint, ready): (&Checkpoint, &Prepared),
    late: Option<&Late>,
    to: Position,
) -> Result<(), Error> {
    checkpoint.advance_ready(client, ready, to).await?;
    match late {
        Some(late) => unpark(database, client, late).await,
        None => Ok(()),
    }
}

/// Opens the transaction of a batch, and enters it.
pub(crate) async fn begin(
    database: &Database,
    checkpoint: &Checkpoint,
    late: Option<&Late>,
    to: Position,
    patience: Duration,
) -> Result<OwnedTransaction, Error> {
    let transaction = open(database, patience).await?;
    let client = transaction.client()?;
    let ready = checkpoint.prepare(client).await?;
    enter(database, client, (checkpoint, &ready), late, to).await?;
    Ok(transaction)
}

async fn unpark(
    database: &Database,
    client: &impl GenericClient,
    late: &Late,
) -> Result<(), Error> {
    let Late { projection, stream, rest, .. } = late;
    let (category, key) = (stream.category(), stream.key());
    let done = match rest {
        None => {
            let sql = "delete from {schema}.parked_streams
                       where projection = $1 and category = $2 and key = $3";
            let sql = database.schema().sql(sql);
            client.execute(&sql, &[&projection, &category, &key]).await
        }
        Some((position, version)) => {
            let sql = "update {schema}.parked_streams set position = $4, version = $5
                       where projection = $1 and category = $2 and key = $3";
            let (sql, position, version) =
                (database.schema().sql(sql), position.get(), version.get());
            client.execute(&sql, &[&projection, &category, &key, &position, &version]).await
        }
    };
    let failed = |source| Error::Bookkeeping { action: "take events from those parked", source };
    match done.map_err(failed)? {
        0 => Err(StoreError::Fenced { name: projection.clone() }.into()),
        _ => Ok(()),
    }
}
