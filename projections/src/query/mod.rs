//! Queries on read models: as they are, as they were, as fresh as the caller needs.

pub(crate) mod cache;
mod held;
mod history;
mod moment;
mod text;
mod wait;

use std::{marker::PhantomData, time::Duration};

use annals_eventstore::{AsOf, EventStore, Position, postgres::Schema};
use futures::{Stream, StreamExt, TryStreamExt};
use tokio_postgres::{Row, error::SqlState, types::ToSql};

pub(crate) use self::moment::position_of;
pub use self::{
    cache::{QueryCache, QueryCacheOptions, QueryCacheStatistics},
    history::{RowDifference, RowVersion, forget_history},
    wait::WaitForReadModel,
};
use self::{held::Found, text::Text};
use crate::{
    engine::failed,
    error::Error,
    metrics::queried,
    read_model::{History, ReadModel, RowKey},
    table::{Sql, checkpoint_name},
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
        Query::new(self)
    }
}

/// A query on a read model.
#[must_use = "a query does nothing until it is asked for rows"]
pub struct Query<'a, R> {
    store: &'a EventStore,
    as_of: Option<AsOf>,
    consistency: Consistency,
    filter: &'static str,
    params: &'a [&'a (dyn ToSql + Sync)],
    /// Conditions on single columns, each with a text.
    texts: Vec<(Text, String)>,
    order: &'static str,
    limit: Option<i64>,
    /// What keeps its answer, if anything does.
    cache: Option<&'a QueryCache>,
    /// Where the tables are if not among the read models, and up to which position they have come.
    elsewhere: Option<(Schema, Position)>,
    row: PhantomData<fn() -> R>,
}

impl<R> std::fmt::Debug for Query<'_, R> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Query")
            .field("as_of", &self.as_of)
            .field("consistency", &self.consistency)
            .field("filter", &self.filter)
            .finish_non_exhaustive()
    }
}

impl<'a, R: ReadModel> Query<'a, R> {
    /// Of tables in another schema, that were filled up to a position and do not change.
    pub(crate) fn elsewhere(store: &'a EventStore, schema: Schema, position: Position) -> Self {
        Self { elsewhere: Some((schema, position)), ..Self::new(store) }
    }

    fn schema(&self) -> Result<&Schema, Error> {
        match &self.elsewhere {
            Some((schema, _)) => Ok(schema),
            None => Ok(self.store.database()?.read_models()),
        }
    }

    fn new(store: &'a EventStore) -> Self {
        Self {
            store,
            as_of: None,
            consistency: Consistency::Eventual,
            filter: "true",
            params: &[],
            texts: Vec::new(),
            order: "",
            limit: None,
            cache: None,
            elsewhere: None,
            row: PhantomData,
        }
    }

    /// Asks for the read model as it was. Needs `history`.
    ///
    /// A moment that the projection has not come to yet is an error, unless the query's consistency
    /// allows waiting. The answer for a moment never changes. To ask several read models, and aggregates,
    /// as of the same moment, use the same position:
    /// [`EventStore::position_at`] gives that of a time.
    pub fn as_of(mut self, as_of: AsOf) -> Self {
        self.as_of = Some(as_of);
        self
    }

    /// Says how fresh the answer must be: eventually consistent unless set.
    pub fn consistency(mut self, consistency: Consistency) -> Self {
        self.consistency = consistency;
        self
    }

    /// Asks for the rows for which a condition on the columns holds, in SQL, with parameters from `$1`
    /// on. It is the same for the present and the past.
    ///
    /// ```no_run
    /// # use annals_eventstore::{AsOf, EventStore};
    /// # use annals_projections::{QueryReadModels, ReadModel};
    /// # async fn run<R: ReadModel>(store: EventStore, then: AsOf)
    /// #     -> Result<(), Box<dyn std::error::Error>> {
    /// let large = store
    ///     .query::<R>()
    ///     .filter("status = $1 and amount > $2", &[&"approved", &10_000_i64])
    ///     .order_by("amount desc")
    ///     .limit(20)
    ///     .as_of(then)
    ///     .all()
    ///     .await?;
    /// # Ok(()) }
    /// ```
    ///
    /// The condition is a part of the program, not of its input; that is what parameters are for.
    pub fn filter(mut self, condition: &'static str, params: &'a [&'a (dyn ToSql + Sync)]) -> Self {
        (self.filter, self.params) = (condition, params);
        self
    }

    /// How far the read model has come; `None` if it is not built yet.
    ///
    /// # Errors
    /// A failure of the database.
    pub async fn reached(self) -> Result<Option<Position>, Error> {
        moment::reached::<R>(self.store.database()?).await
    }

    /// In which order rows come, in SQL; else in that of their keys.
    pub fn order_by(mut self, order: &'static str) -> Self {
        self.order = order;
        self
    }

    /// How many rows are asked for at most.
    pub fn limit(mut self, rows: u32) -> Self {
        self.limit = Some(rows.into());
        self
    }

    /// The row with this key, if there is one and the filter holds for it.
    ///
    /// # Errors
    /// [`Error::NotBuilt`], [`Error::NotReached`], [`Error::TimedOut`], [`Error::NoHistory`],
    /// [`Error::Forgotten`], or a failure of the database.
    pub async fn get(self, key: &R::Key) -> Result<Option<R>, Error> {
        queried(R::TABLE, self.find(key)).await
    }

    async fn find(&self, key: &R::Key) -> Result<Option<R>, Error> {
        if self.cache.is_some() {
            let columns = R::Key::columns(std::slice::from_ref(key));
            let columns: Vec<_> =
                columns.iter().map(|column| &**column as &(dyn ToSql + Sync)).collect();
            let (first, condition) = (self.params().len() + 1, self.condition());
            let statement = |sql: &Sql, at| sql.get(first, at, &condition);
            let read = |rows: &[Row]| rows.first().map(R::from_row).transpose();
            if let Some(row) = self.cached(&columns, statement, read).await? {
                return Ok(row);
            }
        }
        if let (Some(as_of), Consistency::Eventual, History::Kept, None) =
            (self.as_of, self.consistency, R::HISTORY, &self.elsewhere)
        {
            let at = moment::position_of(self.store, as_of).await?;
            if let Some(row) = self.get_as_of(key, at).await? {
                return row.map_err(unanswered::<R>());
            }
        }
        let first = self.params().len() + 1;
        let rows = loop {
            let get = |sql: &Sql, at: Option<usize>| sql.get(first, at, &self.condition());
            let statement = self.statement(R::Key::COLUMNS, get).await?;
            let mut more = Vec::new();
            statement.params(&mut more);
            let rows = self.rows_of(key, &statement.sql, more).await?;
            if let Found::Rows(rows) = statement.found(rows) {
                break rows;
            }
        };
        rows.first().map(|row| R::from_row(row).map_err(unanswered::<R>())).transpose()
    }

    /// The row as of a position, in the statement that looks whether the read model has come to it. `None`
    /// where that takes more: it has not, or it runs inline.
    async fn get_as_of(
        &self,
        key: &R::Key,
        at: Position,
    ) -> Result<Option<Result<Option<R>, tokio_postgres::Error>>, Error> {
        let (database, params) = (self.store.database()?, self.params().len());
        let at_param = params + 1 + R::Key::COLUMNS;
        let sql = Sql::of::<R>(database.read_models());
        let rows = sql.get(params + 1, Some(at_param), &self.condition());
        // If the tables are of other slices than the code, there is no row, and the long way answers.
        let has_come_to = match R::SLICES {
            1 => include_str!("../sql/one_slice_at.sql"),
            _ => include_str!("../sql/all_slices_at.sql"),
        };
        let sql =
            include_str!("../sql/as_of_point.sql").replace("{has_come_to}", has_come_to.trim_end());
        let sql = database
            .schema()
            .sql(&sql)
            .replace("{rows}", &rows)
            .replace("{name}", &format!("${}", at_param + 1))
            .replace("{at}", &format!("${at_param}"));
        let name = checkpoint_name::<R>();
        let rows = self.rows_of(key, &sql, vec![&at.get(), &name]).await?;
        let Some(row) = rows.first() else { return Ok(None) };
        let there = row.try_get::<_, Option<bool>>(R::COLUMNS.len());
        Ok(Some(there.and_then(|there| there.map(|_| R::from_row(row)).transpose())))
    }

    /// What a statement finds whose parameters are those of the filter, the key, and more.
    async fn rows_of(
        &self,
        key: &R::Key,
        sql: &str,
        more: Vec<&(dyn ToSql + Sync)>,
    ) -> Result<Vec<Row>, Error> {
        // Keys come as arrays, here of one element each.
        let columns = R::Key::columns(std::slice::from_ref(key));
        let mut params = self.params();
        params.extend(columns.iter().map(|column| &**column as &(dyn ToSql + Sync)));
        params.extend(more);
        let client = self.store.database()?.client().await?;
        client.query_cached(sql, &params).await.map_err(unanswered::<R>())
    }

    /// How many rows there are.
    ///
    /// # Errors
    /// As [`get`](Self::get).
    pub async fn count(self) -> Result<u64, Error> {
        queried(R::TABLE, self.number()).await
    }

    async fn number(&self) -> Result<u64, Error> {
        let statement = |sql: &Sql, at| sql.count(at, &self.ordered(sql));
        let read = |rows: &[Row]| Ok(rows.first().map_or(0, |row| row.get::<_, i64>(0) as u64));
        if let Some(count) = self.cached(&[], statement, read).await? {
            return Ok(count);
        }
        loop {
            let count = |sql: &Sql, at: Option<usize>| sql.count(at, &self.ordered(sql));
            let statement = self.statement(0, count).await?;
            let mut params = self.params();
            statement.params(&mut params);
            let client = self.store.database()?.client().await?;
            let rows = client.query_cached(&statement.sql, &params).await;
            if let Found::Rows(rows) = statement.found(rows.map_err(unanswered::<R>())?) {
                return read(&rows).map_err(unanswered::<R>());
            }
        }
    }

    /// All rows, in the order of their keys, collected. For large tables, see [`rows`](Self::rows).
    ///
    /// # Errors
    /// As [`get`](Self::get).
    pub async fn all(self) -> Result<Vec<R>, Error> {
        let statement = |sql: &Sql, at| sql.select(at, &self.ordered(sql));
        let read = |rows: &[Row]| rows.iter().map(R::from_row).collect::<Result<Vec<_>, _>>();
        // Where there is no cache, its rows are a query of their own.
        if self.cache.is_some()
            && let Some(rows) = queried(R::TABLE, self.cached(&[], statement, read)).await?
        {
            return Ok(rows);
        }
        self.rows().await?.try_collect().await
    }

    /// All rows, in the order of their keys, streamed with constant memory.
    ///
    /// # Errors
    /// As [`get`](Self::get); also of each row.
    pub async fn rows(self) -> Result<impl Stream<Item = Result<R, Error>> + Send + use<R>, Error> {
        queried(R::TABLE, self.stream()).await
    }

    async fn stream(&self) -> Result<impl Stream<Item = Result<R, Error>> + Send + use<R>, Error> {
        let failed = || unanswered::<R>();
        loop {
            let select = |sql: &Sql, at: Option<usize>| sql.select(at, &self.ordered(sql));
            let statement = self.statement(0, select).await?;
            let mut params = self.params();
            statement.params(&mut params);
            let client = self.store.database()?.client().await?;
            let rows = client.query_raw_cached(&statement.sql, &params).await.map_err(failed())?;
            // It may have ended when the rest of it is asked for.
            let mut rows = rows.boxed().fuse();
            let first = rows.try_next().await.map_err(failed())?;
            if !statement.is_held(first.as_ref()) {
                continue;
            }
            let first = first.filter(|row| statement.is_row(row)).map(Ok);
            return Ok(futures::stream::iter(first)
                .chain(rows)
                .map(move |row| {
                    // The connection goes back to the pool once its rows are read.
                    let _ = &client;
                    row.and_then(|row| R::from_row(&row)).map_err(failed())
                })
                .boxed());
        }
    }

    /// The conditions on rows, with their order and how many are asked for.
    fn ordered(&self, sql: &Sql) -> String {
        let order = if self.order.is_empty() { sql.keys() } else { self.order.to_owned() };
        let mut condition = format!("({}) order by {order}", self.condition());
        if let Some(limit) = self.limit {
            condition += &format!(" limit {limit}");
        }
        condition
    }

    /// Waits until the read model has come to this position.
    ///
    /// # Errors
    /// [`Error::TimedOut`] if it does not within `timeout`.
    pub async fn wait_for(self, position: Position, timeout: Duration) -> Result<(), Error> {
        moment::wait::<R>(self.store.database()?, position, timeout).await
    }
}

fn unanswered<R: ReadModel>() -> impl FnOnce(tokio_postgres::Error) -> Error {
    |error| {
        if error.code() == Some(&SqlState::UNDEFINED_TABLE) {
            return Error::NotBuilt { projection: R::TABLE };
        }
        let code = error.code().map(SqlState::code);
        if code.is_some_and(|code| ["22P02", "22007", "22008", "22003"].contains(&code)) {
            return Error::BadText { projection: R::TABLE, source: error };
        }
        failed::<R>("query the read model")(error)
    }
}
