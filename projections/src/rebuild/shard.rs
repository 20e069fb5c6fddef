//! One part of the rows of a rebuild: folded by a task of its own.
//!
//! What rows were in the past is final as soon as they change, so it is copied into the history while the
//! fold goes on. What they are changes again and again, so it stays in memory and is written now and then,
//! together with the rebuild's checkpoint. After a kill, the history beyond that checkpoint is deleted, and
//! the fold goes on from there.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use annals_eventstore::{
    Position,
    postgres::{Checkpoint, Client, Database},
};
use bytes::Bytes;
use futures::SinkExt;
use tokio::sync::{mpsc, oneshot};
use tokio_postgres::types::{ToSql, Type};
use tokio_util::task::AbortOnDropHandle;
use tracing::Instrument;

use super::{
    copy::Encoder,
    ended,
    place::{PATIENCE, Place},
};
use crate::{
    SqlValue,
    engine::{Rows, failed},
    error::Error,
    fold::{Folding, Held, Past},
    interval::node,
    read_model::{History, ReadModel, Step},
};

/// How many versions are copied at once; as many may gather meanwhile.
const COPIED: usize = 20_000;

/// How many numbers a version has behind its columns: since when it was so, until when, and its node.
const NUMBERS: usize = 3;

/// What a shard is told.
pub(super) enum Told<R: ReadModel> {
    Steps(Vec<Step<R>>),
    /// Hands its rows out to be written, and gets them back unless that was all.
    Hand(oneshot::Sender<Folding<R>>),
    Take(Folding<R>),
}

/// How many rows a shard has in memory, for whoever feeds it.
#[derive(Default)]
pub(super) struct Tally {
    rows: AtomicUsize,
    /// How many touches of rows it has folded of those that it was told.
    folded: AtomicUsize,
}

impl Tally {
    /// How many rows there may be once it has folded `told` touches.
    pub(super) fn at_most(&self, told: usize) -> usize {
        // In this order: whatever is counted here is among the rows.
        let folded = self.folded.load(Ordering::Acquire);
        self.rows.load(Ordering::Relaxed) + (told - folded)
    }

    /// Tells how many rows it goes on with.
    pub(super) fn goes_on_with(&self, rows: usize) {
        self.rows.store(rows, Ordering::Relaxed);
    }

    fn folded(&self, touches: usize, rows: usize) {
        self.rows.store(rows, Ordering::Relaxed);
        self.folded.fetch_add(touches, Ordering::Release);
    }
}

/// How many rows steps touch, each counted as often as it is touched.
pub(super) fn touches<R: ReadModel>(steps: &[Step<R>]) -> usize {
    steps.iter().map(|step| step.keys.as_slice().len()).sum()
}

pub(super) struct Shard<R: ReadModel> {
    database: Database,
    rows: Arc<Rows<R>>,
    checkpoint: Checkpoint,
    /// Whether the table may have rows that are not in memory.
    is_stored: bool,
    folding: Folding<R>,
    tally: Arc<Tally>,
    /// Versions to be copied, and the types of their columns: as COPY takes them, since rows that were just folded
    /// are at hand.
    past: Option<Encoder>,
    types: Option<Arc<[Type]>>,
    /// Versions that are copied while the fold goes on.
    copying: Option<AbortOnDropHandle<Result<(), Error>>>,
}

impl<R: ReadModel> Shard<R> {
    pub(super) fn of(place: &Place<R>, checkpoint: &Checkpoint, tally: &Arc<Tally>) -> Self {
        Self {
            database: place.database.clone(),
            rows: place.rows.clone(),
            checkpoint: checkpoint.clone(),
            is_stored: checkpoint.position() > Position::START,
            folding: Folding::default(),
            tally: tally.clone(),
            past: None,
            types: None,
            copying: None,
        }
    }

    /// Works until it is told no more. Whatever comes of it, nothing is copied afterwards.
    pub(super) async fn run(mut self, told: mpsc::Receiver<Told<R>>) -> Result<(), Error> {
        let worked = self.work(told).await;
        match (worked, self.copied().await) {
            // Of an event only if nothing else failed.
            (Ok(()) | Err(Error::Event(_)), Err(error)) => Err(error),
            (worked, _) => worked,
        }
    }

    async fn work(&mut self, mut told: mpsc::Receiver<Told<R>>) -> Result<(), Error> {
        while let Some(next) = told.recv().await {
            match next {
                Told::Steps(steps) => self.fold(&steps).await?,
                Told::Hand(to) => {
                    self.copy_past().await?;
                    self.copied().await?;
                    // Who asked waits for it, or has failed; then this one is told no more.
                    drop(to.send(std::mem::take(&mut self.folding)));
                }
                Told::Take(folding) => {
                    self.folding = folding;
                    self.is_stored = true;
                }
            }
        }
        Ok(())
    }

    async fn fold(&mut self, steps: &[Step<R>]) -> Result<(), Error> {
        if self.is_stored {
            let client = self.database.client().await?;
            self.rows.load(&client, &mut self.folding, steps).await?;
        }
        self.folding.fold(steps)?;
        self.tally.folded(touches(steps), self.folding.len());
        self.encode_past().await?;
        match &self.past {
            Some(past) if past.rows() >= COPIED => self.copy_past().await,
            _ => Ok(()),
        }
    }

    /// Takes over what is over from the fold.
    async fn encode_past(&mut self) -> Result<(), Error> {
        if self.folding.past.is_empty() {
            return Ok(());
        }
        let types = match &self.types {
            Some(types) => types,
            None => {
                let client = self.database.client().await?;
                let types = types::<R>(&client, &self.rows.table.history, NUMBERS).await?;
                self.types.insert(types)
            }
        };
        let encoder = self.past.get_or_insert_with(|| Encoder::new(types.clone()));
        for Past { row, from, to } in self.folding.past.drain(..) {
            let (from, to) = (from.get(), to.get());
            let numbers: [i64; NUMBERS] = [from, to, node(from, to)];
            encode(encoder, &row, &numbers)?;
        }
        Ok(())
    }

    /// Begins to copy what is over, once what was before it is copied.
    async fn copy_past(&mut self) -> Result<(), Error> {
        self.copied().await?;
        if let Some(past) = self.past.take() {
            let (database, rows) = (self.database.clone(), self.rows.clone());
            let checkpoint = self.checkpoint.clone();
            let copying = async move { copy_past(&database, &rows, &checkpoint, past).await };
            let copying = tokio::spawn(copying.in_current_span());
            self.copying = Some(AbortOnDropHandle::new(copying));
        }
        Ok(())
    }

    /// Waits until what was to be copied is.
    async fn copied(&mut self) -> Result<(), Error> {
        match self.copying.take() {
            Some(copying) => copying.await.unwrap_or_else(|error| Err(ended(error))),
            None => Ok(()),
        }
    }
}

/// Copies versions that are over.
async fn copy_past<R: ReadModel>(
    database: &Database,
    rows: &Rows<R>,
    checkpoint: &Checkpoint,
    past: Encoder,
) -> Result<(), Error> {
    // It need not be on the disk before the checkpoint is, and the commit that moves that one flushes
    // all before it. If the server dies earlier, it would be deleted anyway.
    let lazily = format!("set local synchronous_commit = off; {PATIENCE}");
    let transaction = database.begin_with(&lazily).await?;
    let client = transaction.client()?;
    // Whoever took the rebuild over deletes what was copied before, and not what comes later.
    checkpoint.hold(client).await?;
    let failed = || failed::<R>("copy rows");
    let sink = client.copy_in::<_, Bytes>(&rows.table.copy_history).await.map_err(failed())?;
    let mut sink = std::pin::pin!(sink);
    for part in past.finish() {
        sink.as_mut().feed(part).await.map_err(failed())?;
    }
    sink.finish().await.map_err(failed())?;
    Ok(transaction.commit().await?)
}

/// Copies rows that the table does not have yet.
pub(super) async fn copy_new<R: ReadModel>(
    rows: &Rows<R>,
    client: &Client,
    new: &[&Held<R>],
) -> Result<(), Error> {
    let table = &rows.table;
    match R::HISTORY {
        _ if new.is_empty() => Ok(()),
        History::Kept => {
            let new = new.iter().map(|held| (&held.row, [held.since.get()]));
            copy(client, &table.name, &table.copy, new).await
        }
        History::None => {
            let new = new.iter().map(|held| (&held.row, []));
            copy(client, &table.name, &table.copy, new).await
        }
    }
}

/// Copies rows into a table, each with numbers behind its columns.
async fn copy<'r, R: ReadModel, const N: usize>(
    client: &Client,
    table: &str,
    sql: &str,
    rows: impl Iterator<Item = (&'r R, [i64; N])> + Send,
) -> Result<(), Error> {
    let failed = || failed::<R>("copy rows");
    let types = types::<R>(client, table, N).await?;
    let sink = client.copy_in::<_, Bytes>(sql).await.map_err(failed())?;
    let mut sink = std::pin::pin!(sink);
    let mut encoder = Encoder::new(types);
    for (row, numbers) in rows {
        encode(&mut encoder, row, &numbers)?;
        for part in encoder.full() {
            sink.as_mut().feed(part).await.map_err(failed())?;
        }
    }
    for part in encoder.finish() {
        sink.as_mut().feed(part).await.map_err(failed())?;
    }
    sink.finish().await.map(drop).map_err(failed())
}

/// The types of a table's columns, and of so many numbers behind them.
async fn types<R: ReadModel>(
    client: &Client,
    table: &str,
    numbers: usize,
) -> Result<Arc<[Type]>, Error> {
    let columns: Vec<_> = R::COLUMNS.iter().map(|column| format!("\"{}\"", column.name)).collect();
    let described = format!("select {} from {table} limit 0", columns.join(", "));
    let described = client.prepare(&described).await.map_err(failed::<R>("copy rows"))?;
    let types = described.columns().iter().map(|column| column.type_().clone());
    Ok(types.chain(std::iter::repeat_n(Type::INT8, numbers)).collect())
}

fn encode<R: ReadModel>(encoder: &mut Encoder, row: &R, numbers: &[i64]) -> Result<(), Error> {
    let mut values: Vec<SqlValue<'_>> = Vec::with_capacity(R::COLUMNS.len());
    row.values(&mut values);
    let values = values.iter().map(|value| value as &(dyn ToSql + Sync));
    let numbers = numbers.iter().map(|number| number as &(dyn ToSql + Sync));
    let encoded = encoder.row(values.chain(numbers));
    encoded.map_err(|source| Error::UnfitValue { projection: R::TABLE, source })
}
