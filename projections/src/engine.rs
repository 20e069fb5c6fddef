//! Runs a row projection over batches of events: loads the rows, folds, writes, moves the checkpoint.

use std::{collections::HashMap, marker::PhantomData};

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
    row: PhantomData<R>,
}

impl<R: ReadModel> Engine<R> {
    pub(crate) fn new(database: &Database) -> Self {
        Self {
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
    pub(crate) async fn apply(
        &self,
        events: Vec<Recorded>,
        checkpoint: &mut Checkpoint,
        to: Position,
    ) -> Result<(), Error> {
        let steps = self.steps(events)?;
        let mut client = self.database.client().await?;
        let failed = failed::<R>("begin a transaction");
        let transaction = client.transaction().await.map_err(failed)?;
        // First, so that a worker that was replaced writes nothing.
        checkpoint.advance(&transaction, to).await?;
        if !steps.is_empty() {
            let rows = self.load(&transaction, &steps).await?;
            let changes = fold(&steps, rows)?;
            self.write(&transaction, &changes).await?;
        }
        transaction.commit().await.map_err(self::failed::<R>("commit"))?;
        checkpoint.moved(to);
        Ok(())
    }

    fn steps(&self, events: Vec<Recorded>) -> Result<Vec<Step<R>>, Error> {
        let known =
            events.into_iter().filter_map(|e| Some((self.sources.get(e.stream.category())?, e)));
        known
            .map(|(source, event)| {
                let (stream, version) = (event.stream.clone(), event.version);
                let position = event.position;
                source.step(event).map_err(|source| Error::Event {
                    projection: R::TABLE,
                    stream,
                    version,
                    position,
                    source: Box::new(source),
                })
            })
            .collect()
    }

    /// The rows that a batch touches, in one query.
    async fn load(
        &self,
        transaction: &Transaction<'_>,
        steps: &[Step<R>],
    ) -> Result<HashMap<R::Key, R>, Error> {
        let failed = || failed::<R>("load the rows of a batch");
        let keys: std::collections::HashSet<_> =
            steps.iter().flat_map(|step| step.keys.as_slice()).cloned().collect();
        let keys: Vec<_> = keys.into_iter().collect();
        let columns = R::Key::columns(&keys);
        let load = transaction.prepare_cached(&self.table.load).await.map_err(failed())?;
        let rows = transaction.query(&load, &params(&columns)).await.map_err(failed())?;
        rows.iter()
            .map(|row| R::from_row(row).map(|row| (row.key(), row)).map_err(failed()))
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
