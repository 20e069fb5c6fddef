//! What a worker feeds: something that takes batches of events and moves a checkpoint with them.

use std::time::Duration;

use annals_eventstore::{
    Error as StoreError, Position, Recorded, StreamId, Version,
    postgres::{Checkpoint, Database, GenericClient, OwnedTransaction},
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

/// Begins the transaction of a batch: moves the checkpoint, so that a worker that was replaced writes
/// nothing, and takes late events from those that are parked.
pub(crate) async fn begin(
    database: &Database,
    checkpoint: &Checkpoint,
    late: Option<&Late>,
    to: Position,
    patience: Duration,
) -> Result<OwnedTransaction, Error> {
    let transaction = database.begin().await?;
    let client = transaction.client()?;
    let patience = patience.as_millis().clamp(1000, i32::MAX as u128);
    // A worker that is paused here keeps the checkpoint locked, until the database ends it.
    let limit = format!("set local idle_in_transaction_session_timeout = {patience}");
    let limited = async {
        let failed = |source| Error::Bookkeeping { action: "limit a transaction", source };
        client.batch_execute(&limit).await.map_err(failed)
    };
    let advanced = async { Ok(checkpoint.advance(client, to).await?) };
    tokio::try_join!(limited, advanced)?;
    if let Some(late) = late {
        unpark(database, client, late).await?;
    }
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
            // What was asked of the event that failed is done; the rest is to be applied.
            let sql = "update {schema}.parked_streams
                       set position = $4, version = $5, attempts = 0, asked = 'retry'
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
