//! What rows were: each version of one, what differs between two moments, and forgetting it.

use annals_eventstore::{AsOf, EventStore, Position};
use tokio_postgres::types::ToSql;

use super::{
    Query,
    held::Found,
    moment::{self, position_of},
    unanswered,
};
use crate::{
    engine::failed,
    error::Error,
    read_model::{History, ReadModel, RowKey},
    table::{Sql, checkpoint_name},
};

/// How many versions are deleted at a time.
const FORGOTTEN: i64 = 20_000;

/// A row as it was, and when.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct RowVersion<R> {
    /// The row.
    pub row: R,
    /// The position from which on it was so.
    pub from: Position,
    /// The position from which on it was not so any more; `None` if it still is.
    pub to: Option<Position>,
}

/// A row that is not the same at two moments.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct RowDifference<R> {
    /// What it was at the first moment; `None` if there was none.
    pub before: Option<R>,
    /// What it was at the second.
    pub after: Option<R>,
}

impl<R: ReadModel> Query<'_, R> {
    /// Every version of the row with this key, from the first on, as far as history is kept. Between two
    /// of them there may have been none.
    ///
    /// # Errors
    /// [`Error::NoHistory`], [`Error::NotBuilt`], [`Error::TimedOut`], or a failure of the database.
    pub async fn history(self, key: &R::Key) -> Result<Vec<RowVersion<R>>, Error> {
        if R::HISTORY == History::None {
            return Err(Error::NoHistory { projection: R::TABLE });
        }
        // As fresh as asked.
        self.position().await?;
        let database = self.store.database()?;
        let sql = Sql::of::<R>(database.read_models()).versions();
        let columns = R::Key::columns(std::slice::from_ref(key));
        let params: Vec<_> =
            columns.iter().map(|column| &**column as &(dyn ToSql + Sync)).collect();
        let failed = || unanswered::<R>();
        let client = database.client().await?;
        let rows = client.query_cached(&sql, &params).await.map_err(failed())?;
        let width = R::COLUMNS.len();
        rows.iter()
            .map(|row| {
                let to = row.try_get::<_, Option<i64>>(width + 1).map_err(failed())?;
                Ok(RowVersion {
                    row: R::from_row(row).map_err(failed())?,
                    from: Position::new(row.try_get(width).map_err(failed())?),
                    to: to.map(Position::new),
                })
            })
            .collect()
    }

    /// The rows that differ between two moments, in the order of their keys: those that came, went, or
    /// became others. A row that changed and changed back is among them.
    ///
    /// # Errors
    /// As [`get`](Self::get), of each of the moments.
    pub async fn changes(self, from: AsOf, to: AsOf) -> Result<Vec<RowDifference<R>>, Error> {
        let (from, to) = (position_of(self.store, from).await?, position_of(self.store, to).await?);
        let database = self.store.database()?;
        let failed = || unanswered::<R>();
        let rows = loop {
            for at in [from, to] {
                let query = Query::<R>::new(self.store).consistency(self.consistency);
                query.as_of(AsOf::Position(at)).position().await?;
            }
            let sql = Sql::of::<R>(database.read_models()).changes();
            let (first, last) = (Some(from.min(to)), Some(from.max(to)));
            let statement = self.guarded(sql, 3, first, last)?;
            let (from, to) = (from.get(), to.get());
            let mut params: Vec<&(dyn ToSql + Sync)> = vec![&from, &to];
            statement.params(&mut params);
            let client = database.client().await?;
            let rows = client.query_cached(&statement.sql, &params).await.map_err(failed())?;
            if let Found::Rows(rows) = statement.found(rows) {
                break rows;
            }
        };
        let mut differences: Vec<RowDifference<R>> = Vec::new();
        for found in rows {
            let row = R::from_row(&found).map_err(failed())?;
            let is_later: bool = found.try_get(R::COLUMNS.len()).map_err(failed())?;
            match differences.last_mut() {
                // The same row as of the first moment came just before.
                Some(RowDifference { before: Some(before), after: after @ None })
                    if is_later && before.key() == row.key() =>
                {
                    *after = Some(row);
                }
                _ if is_later => differences.push(RowDifference { before: None, after: Some(row) }),
                _ => differences.push(RowDifference { before: Some(row), after: None }),
            }
        }
        Ok(differences)
    }
}

/// Forgets what rows were before a moment: from then on, no query as of an earlier one is answered. Rows as
/// they were at that moment and later stay. Returns how many versions are gone.
///
/// It may be called at any time, and again after it was interrupted.
/// [`Worker::keep_history`](crate::Worker::keep_history) has workers do it by themselves.
///
/// ```no_run
/// # use annals_eventstore::{AsOf, EventStore};
/// # use annals_projections::{ReadModel, forget_history};
/// # async fn run<R: ReadModel>(store: EventStore) -> Result<(), annals_projections::ProjectionError> {
/// let three_years_ago = chrono::Utc::now() - chrono::TimeDelta::days(3 * 365);
/// forget_history::<R>(&store, AsOf::Time(three_years_ago)).await?;
/// # Ok(()) }
/// ```
///
/// # Errors
/// [`Error::NoHistory`], [`Error::NotBuilt`], [`Error::NotReached`] if the read model has not come to that
/// moment, or a failure of the database.
pub async fn forget_history<R: ReadModel>(store: &EventStore, before: AsOf) -> Result<u64, Error> {
    if R::HISTORY == History::None {
        return Err(Error::NoHistory { projection: R::TABLE });
    }
    let database = store.database()?;
    let needed = position_of(store, before).await?;
    let reached = moment::reached::<R>(database).await?;
    let reached = reached.ok_or(Error::NotBuilt { projection: R::TABLE })?;
    if reached < needed {
        return Err(Error::NotReached { projection: R::TABLE, reached, needed });
    }
    let failed = || failed::<R>("forget history");
    let client = database.client().await?;
    // First that nobody is answered from what is going.
    let note = database
        .schema()
        .sql("update {schema}.projections set kept_from = greatest(kept_from, $2) where name = $1");
    client.execute(&note, &[&checkpoint_name::<R>(), &needed.get()]).await.map_err(failed())?;
    let sql = Sql::of::<R>(database.read_models()).forget();
    let mut forgotten = 0;
    loop {
        let gone = client.execute(&sql, &[&needed.get(), &FORGOTTEN]).await.map_err(failed())?;
        forgotten += gone;
        if gone < FORGOTTEN as u64 {
            return Ok(forgotten);
        }
    }
}
