//! One part of the rows of a rebuild: folded by a task of its own.
//!
//! What rows were in the past is final as soon as they change, so it is copied into the history while the
//! fold goes on. What they are changes again and again, so it stays in memory and is written now and then,
//! together with the rebuild's checkpoint. After a kill, the history beyond that checkpoint is deleted, and
//! the fold goes on from there.

use std::sync::Arc;

use annals_eventstore::postgres::{Checkpoint, Client, Database};
use bytes::Bytes;
use futures::SinkExt;
use tokio::sync::{mpsc, oneshot};
use tokio_postgres::types::{ToSql, Type};

use super::copy::Copy;
use crate::{
    SqlValue,
    engine::{Rows, failed},
    error::Error,
    fold::{Folding, Held, Past},
    guard::Cause,
    interval::node,
    read_model::{History, ReadModel, Step},
};

/// How many versions are copied at once.
const COPIED: usize = 20_000;

/// What a shard is told.
pub(super) enum Told<R: ReadModel> {
    Steps(Vec<Step<R>>),
    /// Hands its rows out to be written, and gets them back.
    Hand(oneshot::Sender<Folding<R>>),
    Take(Folding<R>),
}

pub(super) struct Shard<R: ReadModel> {
    pub(super) database: Database,
    pub(super) rows: Arc<Rows<R>>,
    pub(super) checkpoint: Checkpoint,
    /// Whether the table may have rows that are not in memory.
    pub(super) stored: bool,
    pub(super) folding: Folding<R>,
}

impl<R: ReadModel> Shard<R> {
    /// Works until it is told no more.
    pub(super) async fn run(mut self, mut told: mpsc::Receiver<Told<R>>) -> Result<(), Error> {
        while let Some(next) = told.recv().await {
            match next {
                Told::Steps(steps) => self.fold(&steps).await?,
                Told::Hand(to) => {
                    self.copy_past().await?;
                    // Who asked waits for it, or has failed; then this one is told no more.
                    drop(to.send(std::mem::take(&mut self.folding)));
                }
                Told::Take(folding) => {
                    self.folding = folding;
                    self.stored = true;
                }
            }
        }
        Ok(())
    }

    async fn fold(&mut self, steps: &[Step<R>]) -> Result<(), Error> {
        if self.stored {
            let client = self.database.client().await?;
            self.rows.load(&client, &mut self.folding, steps).await?;
        }
        self.folding.fold(steps)?;
        if self.folding.past.len() >= COPIED { self.copy_past().await } else { Ok(()) }
    }

    async fn copy_past(&mut self) -> Result<(), Error> {
        if self.folding.past.is_empty() {
            return Ok(());
        }
        let transaction = self.database.begin().await?;
        let client = transaction.client()?;
        // Whoever took the rebuild over deletes what was copied before, and not what comes later.
        self.checkpoint.hold(client).await?;
        copy_past(&self.rows, client, &self.folding.past).await?;
        transaction.commit().await?;
        self.folding.past.clear();
        Ok(())
    }
}

/// Copies versions that are over.
async fn copy_past<R: ReadModel>(
    rows: &Rows<R>,
    client: &Client,
    past: &[Past<R>],
) -> Result<(), Error> {
    let table = &rows.table;
    let types = types::<R>(client, &table.history, 3).await?;
    let copied = encode(&types, past, |Past { row, from, to }| {
        let (from, to) = (from.get(), to.get());
        (row, [from, to, node(from, to)])
    });
    send::<R>(client, &table.copy_history, copied).await
}

/// Copies rows that the table does not have yet.
pub(super) async fn copy_new<R: ReadModel>(
    rows: &Rows<R>,
    client: &Client,
    new: &[&Held<R>],
) -> Result<(), Error> {
    let table = &rows.table;
    let copied = match R::HISTORY {
        History::Kept => {
            let types = types::<R>(client, &table.name, 1).await?;
            encode(&types, new, |held| (&held.row, [held.since.get()]))
        }
        History::None => {
            let types = types::<R>(client, &table.name, 0).await?;
            encode(&types, new, |held| (&held.row, []))
        }
    };
    send::<R>(client, &table.copy, copied).await
}

/// The types of a table's columns, and of so many numbers behind them.
async fn types<R: ReadModel>(
    client: &Client,
    table: &str,
    numbers: usize,
) -> Result<Vec<Type>, Error> {
    let columns: Vec<_> = R::COLUMNS.iter().map(|column| format!("\"{}\"", column.name)).collect();
    let described = format!("select {} from {table} limit 0", columns.join(", "));
    let described = client.prepare(&described).await.map_err(failed::<R>("copy rows"))?;
    let types = described.columns().iter().map(|column| column.type_().clone());
    Ok(types.chain(std::iter::repeat_n(Type::INT8, numbers)).collect())
}

/// Encodes rows, each with numbers behind its columns.
fn encode<T, R: ReadModel, const N: usize>(
    types: &[Type],
    rows: &[T],
    of: impl Fn(&T) -> (&R, [i64; N]),
) -> Result<Vec<Bytes>, Cause> {
    let mut copy = Copy::new(types);
    for row in rows {
        let (row, numbers) = of(row);
        let mut values: Vec<SqlValue<'_>> = Vec::with_capacity(types.len());
        row.values(&mut values);
        let values = values.iter().map(|value| value as &(dyn ToSql + Sync));
        copy.row(values.chain(numbers.iter().map(|number| number as &(dyn ToSql + Sync))))?;
    }
    Ok(copy.finish())
}

async fn send<R: ReadModel>(
    client: &Client,
    sql: &str,
    copied: Result<Vec<Bytes>, Cause>,
) -> Result<(), Error> {
    let failed = || failed::<R>("copy rows");
    let copied = copied.map_err(|source| Error::Rebuild { source })?;
    let sink = client.copy_in::<_, Bytes>(sql).await.map_err(failed())?;
    let mut sink = std::pin::pin!(sink);
    for part in copied {
        sink.as_mut().feed(part).await.map_err(failed())?;
    }
    sink.finish().await.map(drop).map_err(failed())
}
