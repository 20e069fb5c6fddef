//! What a worker feeds: something that takes batches of events and moves a checkpoint with them.

use std::time::{Duration, Instant};

use annals_eventstore::{
    Error as StoreError, Position, Recorded, StreamId, Version,
    postgres::{
        Checkpoint, Client, Database, GenericClient, OwnedTransaction, Prepared, WaitingEvents,
    },
};
use async_trait::async_trait;

use crate::{error::Error, offsets::Mark};

/// Events to be dealt with at once, in the order of their positions.
#[derive(Clone, Debug)]
pub(crate) struct Batch {
    pub(crate) events: Vec<Recorded>,
    /// Where the checkpoint stands afterwards.
    pub(crate) to: Position,
    /// There is more behind it already.
    pub(crate) more: bool,
    pub(crate) beside: Beside,
}

/// What is written in the transaction that moves the checkpoint, beside what comes of the events.
#[derive(Clone, Debug, Default)]
pub(crate) struct Beside {
    /// The events are those of a parked stream.
    pub(crate) late: Option<Late>,
    /// Events of parked streams that are to be kept, as far as the checkpoint passes them.
    pub(crate) waiting: Option<Waiting>,
    /// Where in Kafka to go on, if the checkpoint comes to it.
    pub(crate) mark: Option<Mark>,
}

/// Events of parked streams of a projection.
#[derive(Clone, Debug)]
pub(crate) struct Waiting {
    /// The name of the projection's checkpoint, under which the streams are parked.
    pub(crate) projection: String,
    pub(crate) events: Vec<Recorded>,
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
        Self { events, to, more, beside: Beside::default() }
    }

    pub(crate) fn with(self, beside: Beside) -> Self {
        Self { beside, ..self }
    }

    pub(crate) fn late(&self) -> Option<&Late> {
        self.beside.late.as_ref()
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
    ///
    /// It may leave a part undone without an error: then the checkpoint stands before that, late events are
    /// still parked, and [`rest`](Self::rest) says for how long.
    async fn apply(&mut self, batch: Batch, checkpoint: &mut Checkpoint) -> Result<(), Error>;

    /// Until when it rests, if it left a part of the last batch undone.
    fn rest(&self) -> Option<Rest> {
        None
    }

    /// Somebody found, or says, that what it acts on works again.
    fn mended(&mut self) {}
}

/// How long a target rests before it goes on with what it left undone.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Rest {
    /// Until then.
    Until(Instant),
    /// Until then, or until there are more events: it would go on with those.
    OrMore(Instant),
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

/// Moves the checkpoint, so that a worker that was replaced writes nothing, and writes what goes beside it. What is
/// polled after it comes behind it.
pub(crate) async fn enter(
    database: &Database,
    client: &Client,
    (checkpoint, ready): (&Checkpoint, &Prepared),
    beside: &Beside,
    to: Position,
) -> Result<(), Error> {
    let Beside { late, waiting, mark } = beside;
    let mark = mark.as_ref().filter(|mark| mark.position <= to);
    let moving = async { checkpoint.advance_ready(client, ready, to).await.map_err(Error::from) };
    let noting = async {
        match mark {
            Some(mark) => mark.write(database, client, checkpoint.name()).await,
            None => Ok(()),
        }
    };
    // Sent at once. If the checkpoint has not moved, that is what is told, and nothing is committed.
    let (moved, noted) = tokio::join!(moving, noting);
    moved?;
    noted?;
    if let Some(Waiting { projection, events }) = waiting {
        let passed: Vec<_> = events.iter().filter(|event| event.position <= to).collect();
        WaitingEvents::of(database, projection).keep(client, &passed).await?;
    }
    match late {
        Some(late) => unpark(database, client, late).await,
        None => Ok(()),
    }
}

/// Opens the transaction of a batch, and enters it.
pub(crate) async fn begin(
    database: &Database,
    checkpoint: &Checkpoint,
    beside: &Beside,
    to: Position,
    patience: Duration,
) -> Result<OwnedTransaction, Error> {
    let transaction = open(database, patience).await?;
    let client = transaction.client()?;
    let ready = checkpoint.prepare(client).await?;
    enter(database, client, (checkpoint, &ready), beside, to).await?;
    Ok(transaction)
}

async fn unpark(
    database: &Database,
    client: &impl GenericClient,
    late: &Late,
) -> Result<(), Error> {
    let Late { projection, stream, rest, .. } = late;
    let kept = WaitingEvents::of(database, projection);
    let before = rest.map_or(Position::new(i64::MAX), |(position, _)| position);
    kept.forget(client, stream, before).await?;
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
