//! Runs a row projection over batches of events: loads the rows, folds, writes, moves the checkpoint.

use std::{
    collections::{HashMap, HashSet},
    marker::PhantomData,
    time::Duration,
};

use annals_eventstore::{
    Position, Recorded,
    postgres::{Checkpoint, Database, Transaction},
};
use tokio_postgres::types::ToSql;

use crate::{
    error::Error,
    fold::{Changes, fold},
    read_model::{History, ReadModel, RowKey, Source, Step},
    table::Table,
};

pub(crate) struct Engine<R: ReadModel> {
    database: Database,
    table: Table,
    sources: HashMap<&'static str, Source<R>>,
    /// Ends a transaction that does not get on, for the sake of the worker's successor.
    limit: String,
    row: PhantomData<R>,
}

impl<R: ReadModel> Engine<R> {
    /// A worker that is paused in the middle of a transaction keeps the checkpoint locked, and its
    /// successor waiting, until the database ends that transaction after `patience`.
    pub(crate) fn new(database: &Database, patience: Duration) -> Self {
        let patience = patience.as_millis().clamp(1000, i32::MAX as u128);
        Self {
            limit: format!("set local idle_in_transaction_session_timeout = {patience}"),
            database: database.clone(),
            table: Table::of::<R>(database),
            sources: R::sources().into_iter().map(|source| (source.category(), source)).collect(),
            row: PhantomData,
        }
    }

    pub(crate) fn categories(&self) -> Vec<String> {
        self.sources.keys().map(|category| (*category).to_owned()).collect()
    }

    /// Projects a batch of events and moves the checkpoint, all in one transaction.
    ///
    /// Before an event that cannot be projected, it stops: all below is projected, then it fails.
    pub(crate) async fn apply(
        &self,
        events: Vec<Recorded>,
        checkpoint: &mut Checkpoint,
        to: Position,
    ) -> Result<(), Error> {
        let (steps, failure) = self.steps(events);
        let Some((at, failure)) = failure else {
            return self.project(&steps, checkpoint, to).await;
        };
        let before = Position::new(at.get() - 1);
        if before > checkpoint.position() {
            self.project(&steps, checkpoint, before).await?;
        }
        Err(failure)
    }

    async fn project(
        &self,
        steps: &[Step<R>],
        checkpoint: &mut Checkpoint,
        to: Position,
    ) -> Result<(), Error> {
        let mut client = self.database.client().await?;
        let failed = failed::<R>("begin a transaction");
        let transaction = client.transaction().await.map_err(failed)?;
        // The checkpoint first, so that a worker that was replaced writes nothing.
        let limited = async {
            let failed = self::failed::<R>("limit a transaction");
            transaction.batch_execute(&self.limit).await.map_err(failed)
        };
        let advanced = async { Ok(checkpoint.advance(&transaction, to).await?) };
        tokio::try_join!(limited, advanced)?;
        if !steps.is_empty() {
            let rows = self.load(&transaction, steps).await?;
            let changes = fold(steps, rows)?;
            self.write(&transaction, &changes).await?;
        }
        transaction.commit().await.map_err(self::failed::<R>("commit"))?;
        checkpoint.moved(to);
        Ok(())
    }

    /// Decodes the events, up to the first that cannot be projected, if there is one.
    fn steps(&self, events: Vec<Recorded>) -> (Vec<Step<R>>, Option<(Position, Error)>) {
        let mut steps = Vec::with_capacity(events.len());
        for event in events {
            let Some(source) = self.sources.get(event.stream.category()) else { continue };
            let (stream, version, position) = (event.stream.clone(), event.version, event.position);
            match source.step(event) {
                Ok(of_event) => steps.extend(of_event),
                Err(source) => {
                    let (projection, source) = (R::TABLE, Box::new(source));
                    let failure = Error::Event { projection, stream, version, position, source };
                    return (steps, Some((position, failure)));
                }
            }
        }
        (steps, None)
    }

    /// The rows that a batch touches, in one query.
    async fn load(
        &self,
        transaction: &Transaction<'_>,
        steps: &[Step<R>],
    ) -> Result<HashMap<R::Key, R>, Error> {
        let failed = || failed::<R>("load the rows of a batch");
        let keys: HashSet<_> =
            steps.iter().flat_map(|step| step.keys.as_slice()).cloned().collect();
        let given: Vec<_> = keys.iter().cloned().collect();
        let columns = R::Key::columns(&given);
        let load = transaction.prepare_cached(&self.table.load).await.map_err(failed())?;
        let rows = transaction.query(&load, &params(&columns)).await.map_err(failed())?;
        rows.iter()
            .map(|row| {
                let row = R::from_row(row).map_err(failed())?;
                let key = row.key();
                // A row that is not found again would be taken for one that does not exist.
                let known = keys.contains(&key);
                if known {
                    Ok((key, row))
                } else {
                    Err(Error::UnstableKey { projection: R::TABLE })
                }
            })
            .collect()
    }

    async fn write(
        &self,
        transaction: &Transaction<'_>,
        changes: &Changes<R>,
    ) -> Result<(), Error> {
        let table = &self.table;
        if !changes.set.is_empty() {
            let columns = R::columns(&changes.set.iter().collect::<Vec<_>>());
            run::<R>(transaction, "write rows", &table.upsert, params(&columns)).await?;
        }
        if !changes.deleted.is_empty() {
            let keys = R::Key::columns(&changes.deleted);
            run::<R>(transaction, "delete rows", &table.delete, params(&keys)).await?;
        }
        if R::HISTORY == History::None {
            return Ok(());
        }
        if !changes.closed.is_empty() {
            let (keys, at): (Vec<_>, Vec<_>) = changes.closed.iter().cloned().unzip();
            let keys = R::Key::columns(&keys);
            let mut values = params(&keys);
            values.push(&at);
            run::<R>(transaction, "close versions of rows", &table.close, values).await?;
        }
        if !changes.versions.is_empty() {
            let rows: Vec<_> = changes.versions.iter().map(|(row, ..)| row).collect();
            let from: Vec<_> = changes.versions.iter().map(|(_, from, _)| *from).collect();
            let to: Vec<_> = changes.versions.iter().map(|(.., to)| *to).collect();
            let columns = R::columns(&rows);
            let mut values = params(&columns);
            values.extend([&from as &(dyn ToSql + Sync), &to]);
            run::<R>(transaction, "keep versions of rows", &table.keep, values).await?;
        }
        Ok(())
    }
}

fn params<'a>(columns: &'a [Box<crate::SqlParam<'_>>]) -> Vec<&'a (dyn ToSql + Sync)> {
    columns.iter().map(|column| &**column as &(dyn ToSql + Sync)).collect()
}

async fn run<R: ReadModel>(
    transaction: &Transaction<'_>,
    action: &'static str,
    sql: &str,
    params: Vec<&(dyn ToSql + Sync)>,
) -> Result<(), Error> {
    let statement = transaction.prepare_cached(sql).await.map_err(failed::<R>(action))?;
    transaction.execute(&statement, &params).await.map(drop).map_err(failed::<R>(action))
}

/// Turns what the database says into an error that names the read model and the action.
pub(crate) fn failed<R: ReadModel>(
    action: &'static str,
) -> impl FnOnce(tokio_postgres::Error) -> Error {
    move |source| Error::Database { projection: R::TABLE, action, source }
}
