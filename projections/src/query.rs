//! Queries on read models: as they are, as they were, as fresh as the caller needs.

use std::{marker::PhantomData, time::Duration};

use annals_eventstore::{AsOf, EventStore, Position, postgres::Database};
use futures::{Stream, StreamExt, TryStreamExt};
use tokio_postgres::{error::SqlState, types::ToSql};

use crate::{
    engine::failed,
    error::Error,
    read_model::{History, ReadModel, RowKey},
    table::{Table, checkpoint_name},
};

/// How fresh the answer to a query must be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Consistency {
    /// Whatever the read model holds now.
    #[default]
    Eventual,
    /// At least everything up to this position, for example that of the caller's own command
    /// ([`Committed::position`](annals_eventstore::Committed)). Waits up to the given time.
    AtLeast(Position, Duration),
    /// Everything that was committed before the query, without waiting. Only a read model that runs
    /// inline has it (see [`InlineProjections`](crate::InlineProjections)); of others it is an error.
    Strong,
}

/// Queries on read models, as methods of the store.
pub trait QueryReadModels {
    /// Starts a query.
    ///
    /// ```no_run
    /// # use annals_eventstore::{AsOf, Committed, EventStore};
    /// # use annals_projections::{Consistency, QueryReadModels, ReadModel};
    /// # use std::time::Duration;
    /// # async fn run<R: ReadModel<Key = String>>(store: EventStore, done: Committed)
    /// #     -> Result<(), Box<dyn std::error::Error>> {
    /// // One row, in which the command's events are:
    /// let fresh = Consistency::AtLeast(done.position, Duration::from_secs(5));
    /// let row = store.query::<R>().consistency(fresh).get(&"ada".to_owned()).await?;
    /// // The whole table as it was:
    /// let then = AsOf::Time("2011-12-31T00:00:00Z".parse()?);
    /// let rows = store.query::<R>().as_of(then).all().await?;
    /// # Ok(()) }
    /// ```
    fn query<R: ReadModel>(&self) -> Query<'_, R>;
}

impl QueryReadModels for EventStore {
    fn query<R: ReadModel>(&self) -> Query<'_, R> {
        Query { store: self, as_of: None, consistency: Consistency::Eventual, row: PhantomData }
    }
}

/// A query on a read model.
#[derive(Debug)]
#[must_use = "a query does nothing until get, all, rows or wait_for"]
pub struct Query<'a, R> {
    store: &'a EventStore,
    as_of: Option<AsOf>,
    consistency: Consistency,
    row: PhantomData<fn() -> R>,
}

impl<R: ReadModel> Query<'_, R> {
    /// Asks for the read model as it was. Needs `history`.
    ///
    /// A moment that the projection has not come to yet is an error, unless the query's consistency
    /// allows waiting. The answer for a moment never changes.
    pub fn as_of(mut self, as_of: AsOf) -> Self {
        self.as_of = Some(as_of);
        self
    }

    /// Says how fresh the answer must be: eventually consistent unless set.
    pub fn consistency(mut self, consistency: Consistency) -> Self {
        self.consistency = consistency;
        self
    }

    /// The row with this key, if there is one.
    ///
    /// # Errors
    /// [`Error::NotBuilt`], [`Error::NotReached`], [`Error::TimedOut`], [`Error::NoHistory`], or a
    /// failure of the database.
    pub async fn get(self, key: &R::Key) -> Result<Option<R>, Error> {
        let database = self.store.database()?;
        let queries = Table::of::<R>(database.schema(), database.read_models()).queries;
        let keys = std::slice::from_ref(key);
        let at = self.position().await?.map(Position::get);
        let client = database.client().await?;
        // Keys come as arrays, here of one element each.
        let columns = R::Key::columns(keys);
        let mut params: Vec<&(dyn ToSql + Sync)> = Vec::new();
        let sql = if let Some(at) = &at {
            params.push(at);
            &queries.get_as_of
        } else {
            &queries.get
        };
        params.extend(columns.iter().map(|column| &**column as &(dyn ToSql + Sync)));
        let failed = || unanswered::<R>();
        let statement = client.prepare_cached(sql).await.map_err(failed())?;
        let row = client.query_opt(&statement, &params).await.map_err(failed())?;
        row.map(|row| R::from_row(&row).map_err(failed())).transpose()
    }

    /// All rows, in the order of their keys, collected. For large tables, see [`rows`](Self::rows).
    ///
    /// # Errors
    /// As [`get`](Self::get).
    pub async fn all(self) -> Result<Vec<R>, Error> {
        self.rows().await?.try_collect().await
    }

    /// All rows, in the order of their keys, streamed with constant memory.
    ///
    /// # Errors
    /// As [`get`](Self::get); also of each row.
    pub async fn rows(self) -> Result<impl Stream<Item = Result<R, Error>> + Send, Error> {
        let database = self.store.database()?;
        let queries = Table::of::<R>(database.schema(), database.read_models()).queries;
        let at = self.position().await?.map(Position::get);
        let client = database.client().await?;
        let sql = if at.is_some() { &queries.all_as_of } else { &queries.all };
        let failed = || unanswered::<R>();
        let statement = client.prepare_cached(sql).await.map_err(failed())?;
        let params = at.iter().map(|at| at as &(dyn ToSql + Sync));
        let rows = client.query_raw(&statement, params).await.map_err(failed())?;
        Ok(rows
            .map(move |row| {
                // The connection goes back to the pool once its rows are read.
                let _ = &client;
                row.and_then(|row| R::from_row(&row)).map_err(failed())
            })
            .boxed())
    }

    /// Waits until the read model has come to this position.
    ///
    /// # Errors
    /// [`Error::TimedOut`] if it does not within `timeout`.
    pub async fn wait_for(self, position: Position, timeout: Duration) -> Result<(), Error> {
        wait::<R>(self.store.database()?, position, timeout).await
    }

    /// The position that the query is about, after waiting until the read model is fresh enough.
    async fn position(&self) -> Result<Option<Position>, Error> {
        let database = self.store.database()?;
        let at = match self.as_of {
            None => None,
            Some(_) if R::HISTORY == History::None => {
                return Err(Error::NoHistory { projection: R::TABLE });
            }
            Some(AsOf::Time(time)) => Some(self.store.position_at(time).await?),
            Some(AsOf::Position(position)) => Some(position),
            Some(_) => return Err(Error::NotAMoment),
        };
        match (self.consistency, at) {
            (Consistency::Eventual, None) => {}
            (Consistency::Eventual, Some(needed)) => {
                let reached = reached::<R>(database).await?;
                let reached = reached.ok_or(Error::NotBuilt { projection: R::TABLE })?;
                if reached < needed {
                    return Err(Error::NotReached { projection: R::TABLE, reached, needed });
                }
            }
            (Consistency::Strong, at) => {
                let name = checkpoint_name::<R>();
                if database.inline_categories(&name).await?.is_none() {
                    return Err(Error::NotInline { projection: R::TABLE });
                }
                if let Some(needed) = at {
                    settle::<R>(self.store, needed).await?;
                }
            }
            (Consistency::AtLeast(position, timeout), at) => {
                let needed = at.map_or(position, |at| at.max(position));
                wait::<R>(database, needed, timeout).await?;
            }
        }
        Ok(at)
    }
}

/// Where the read model is; `None` if it has no tables yet, which come with the checkpoint.
async fn reached<R: ReadModel>(database: &Database) -> Result<Option<Position>, Error> {
    let sql = database.schema().sql("select {schema}.reached($1)");
    let failed = || failed::<R>("see how far it has come");
    let client = database.client().await?;
    let statement = client.prepare_cached(&sql).await.map_err(failed())?;
    let row = client.query_one(&statement, &[&checkpoint_name::<R>()]).await.map_err(failed())?;
    Ok(row.get::<_, Option<i64>>(0).map(Position::new))
}

/// Waits for the appends in flight at or below a position, which an inline read model has with them.
async fn settle<R: ReadModel>(store: &EventStore, needed: Position) -> Result<(), Error> {
    let mut reached = store.safe_position().await?;
    if reached < needed {
        // Beyond the end of the log, there is nothing to wait for.
        let sql = store.database()?.schema().sql("select {schema}.last_position()");
        let row = store.database()?.client().await?.query_one(&sql, &[]).await;
        let last = Position::new(row.map_err(failed::<R>("find the end of the log"))?.get(0));
        if last < needed {
            return Err(Error::NotReached { projection: R::TABLE, reached, needed });
        }
    }
    while reached < needed {
        tokio::time::sleep(Duration::from_millis(3)).await;
        reached = store.safe_position().await?;
    }
    Ok(())
}

fn unanswered<R: ReadModel>() -> impl FnOnce(tokio_postgres::Error) -> Error {
    |error| {
        if error.code() == Some(&SqlState::UNDEFINED_TABLE) {
            return Error::NotBuilt { projection: R::TABLE };
        }
        failed::<R>("query the read model")(error)
    }
}

async fn wait<R: ReadModel>(
    database: &Database,
    needed: Position,
    timeout: Duration,
) -> Result<(), Error> {
    let started = tokio::time::Instant::now();
    let mut pause = Duration::from_millis(1);
    loop {
        let reached = reached::<R>(database).await?;
        if reached.is_some_and(|reached| reached >= needed) {
            return Ok(());
        }
        let left = timeout.saturating_sub(started.elapsed());
        if left.is_zero() {
            let reached = reached.unwrap_or_default();
            return Err(Error::TimedOut { projection: R::TABLE, reached, needed, waited: timeout });
        }
        tokio::time::sleep(pause.min(left)).await;
        pause = (pause * 2).min(Duration::from_millis(20));
    }
}
