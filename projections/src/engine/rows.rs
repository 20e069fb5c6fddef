//! Rows of a read model, read and written with one statement each.

use std::{collections::HashSet, marker::PhantomData};

use annals_eventstore::{
    Position,
    postgres::{Client, GenericClient, Schema},
};
use tokio_postgres::{Row, error::SqlState, types::ToSql};

use crate::{
    SqlParam,
    error::Error,
    fold::{Changes, Folding, Held, Past},
    interval::node,
    read_model::{History, ReadModel, RowKey, Step},
    table::Table,
};

/// How many rows go with one statement at most.
const CHUNK: usize = 10_000;

pub(crate) struct Rows<R> {
    pub(crate) table: Table,
    row: PhantomData<fn() -> R>,
}

impl<R: ReadModel> Rows<R> {
    pub(crate) fn of(store: &Schema, schema: &Schema) -> Self {
        Self { table: Table::of::<R>(store, schema), row: PhantomData }
    }

    /// Loads the rows that events touch and that are not known yet, in one query.
    pub(crate) async fn load(
        &self,
        client: &Client,
        folding: &mut Folding<R>,
        steps: &[Step<R>],
    ) -> Result<(), Error> {
        let touched = steps.iter().flat_map(|step| step.keys.as_slice());
        let mut keys: HashSet<_> = touched.filter(|key| !folding.knows(key)).cloned().collect();
        if keys.is_empty() {
            return Ok(());
        }
        let failed = || failed::<R>("load the rows of a batch");
        let given: Vec<_> = keys.iter().cloned().collect();
        let columns = R::Key::columns(&given);
        let load = client.prepare_cached(&self.table.load).await.map_err(failed())?;
        for row in client.query(&load, &params(&columns)).await.map_err(failed())? {
            let held = held::<R>(&row).map_err(failed())?;
            let key = held.row.key();
            // A row that is not found again would be taken for one that does not exist.
            if !keys.remove(&key) {
                return Err(Error::UnstableKey { projection: R::TABLE });
            }
            folding.stored(key, Some(held));
        }
        keys.into_iter().for_each(|key| folding.stored(key, None));
        Ok(())
    }

    /// Writes what changed, with one statement for each kind of change, all sent at once: they are of
    /// different rows.
    pub(crate) async fn write(&self, client: &Client, folding: &Folding<R>) -> Result<(), Error> {
        let Changes { new, changed, gone } = folding.changes();
        let Table { insert, update, delete, keep, .. } = &self.table;
        let wanted = [
            (insert, new.is_empty()),
            (update, changed.is_empty()),
            (delete, gone.is_empty()),
            (keep, folding.past.is_empty()),
        ];
        // Before any is sent: one that fails leaves nothing that could be prepared.
        for (sql, _) in wanted.into_iter().filter(|(_, is_needless)| !is_needless) {
            client.prepare_cached(sql).await.map_err(failed::<R>("write rows"))?;
        }
        let written = tokio::join!(
            self.put(client, "insert rows", insert, &new),
            self.put(client, "update rows", update, &changed),
            self.remove(client, &gone),
            self.keep(client, &folding.past),
        );
        let failures =
            [written.0, written.1, written.2, written.3].into_iter().filter_map(Result::err);
        // What comes behind one that failed fails too, and says only that.
        let (follows, fails): (Vec<_>, Vec<_>) = failures.partition(is_consequence);
        fails.into_iter().chain(follows).next().map_or(Ok(()), Err)
    }

    /// Writes what changed of rows that were there.
    pub(crate) async fn rewrite(
        &self,
        client: &Client,
        changes: &Changes<'_, R>,
    ) -> Result<(), Error> {
        self.remove(client, &changes.gone).await?;
        self.put(client, "update rows", &self.table.update, &changes.changed).await
    }

    async fn remove(&self, client: &Client, gone: &[R::Key]) -> Result<(), Error> {
        for gone in gone.chunks(CHUNK) {
            let keys = R::Key::columns(gone);
            run::<R>(client, "delete rows", &self.table.delete, params(&keys)).await?;
        }
        Ok(())
    }

    async fn put(
        &self,
        client: &Client,
        action: &'static str,
        sql: &str,
        rows: &[&Held<R>],
    ) -> Result<(), Error> {
        for rows in rows.chunks(CHUNK) {
            let since: Vec<_> = rows.iter().map(|held| held.since.get()).collect();
            let columns = R::columns(&rows.iter().map(|held| &held.row).collect::<Vec<_>>());
            let mut values = params(&columns);
            if R::HISTORY == History::Kept {
                values.push(&since);
            }
            run::<R>(client, action, sql, values).await?;
        }
        Ok(())
    }

    async fn keep(&self, client: &Client, past: &[Past<R>]) -> Result<(), Error> {
        for past in past.chunks(CHUNK) {
            self.keep_some(client, past).await?;
        }
        Ok(())
    }

    async fn keep_some(&self, client: &Client, past: &[Past<R>]) -> Result<(), Error> {
        let columns = R::columns(&past.iter().map(|past| &past.row).collect::<Vec<_>>());
        let from: Vec<_> = past.iter().map(|past| past.from.get()).collect();
        let to: Vec<_> = past.iter().map(|past| past.to.get()).collect();
        let nodes: Vec<_> = std::iter::zip(&from, &to).map(|(from, to)| node(*from, *to)).collect();
        let mut values = params(&columns);
        values.extend([&from as &(dyn ToSql + Sync), &to, &nodes]);
        run::<R>(client, "keep versions of rows", &self.table.keep, values).await
    }

    /// Hashes of keys, the same in every program.
    pub(crate) async fn lock_numbers(
        &self,
        client: &Client,
        keys: Vec<R::Key>,
    ) -> Result<Vec<i32>, Error> {
        let columns = R::Key::columns(&keys);
        let failed = || failed::<R>("hash the keys of rows");
        let statement = client.prepare_cached(&self.table.lock_numbers).await.map_err(failed())?;
        let rows = client.query(&statement, &params(&columns)).await.map_err(failed())?;
        Ok(rows.iter().map(|row| row.get(0)).collect())
    }
}

/// True if a statement failed because one before it in the transaction did.
fn is_consequence(error: &Error) -> bool {
    matches!(error, Error::Database { source, .. }
        if source.code() == Some(&SqlState::IN_FAILED_SQL_TRANSACTION))
}

/// Reads a row of the table, with its beginning where history is kept.
fn held<R: ReadModel>(row: &Row) -> Result<Held<R>, tokio_postgres::Error> {
    let since = match R::HISTORY {
        History::Kept => row.try_get(R::COLUMNS.len())?,
        History::None => 0,
    };
    Ok(Held { row: R::from_row(row)?, since: Position::new(since) })
}

pub(crate) fn params<'a>(columns: &'a [Box<SqlParam<'_>>]) -> Vec<&'a (dyn ToSql + Sync)> {
    columns.iter().map(|column| &**column as &(dyn ToSql + Sync)).collect()
}

async fn run<R: ReadModel>(
    client: &impl GenericClient,
    action: &'static str,
    sql: &str,
    params: Vec<&(dyn ToSql + Sync)>,
) -> Result<(), Error> {
    let statement = client.prepare_cached(sql).await.map_err(failed::<R>(action))?;
    client.execute(&statement, &params).await.map(drop).map_err(failed::<R>(action))
}

/// Turns what the database says into an error that names the read model and the action.
pub(crate) fn failed<R: ReadModel>(
    action: &'static str,
) -> impl FnOnce(tokio_postgres::Error) -> Error {
    move |source| Error::Database { projection: R::TABLE.to_owned(), action, source }
}
