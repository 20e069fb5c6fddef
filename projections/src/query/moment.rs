//! Which moment a query is about, and waiting until the read model has come to it.

use std::time::Duration;

use annals_eventstore::{AsOf, EventStore, Position, postgres::Database};

use super::{Consistency, Query};
use crate::{
    engine::failed,
    error::Error,
    read_model::{History, ReadModel},
    table::checkpoint_name,
};

impl<R: ReadModel> Query<'_, R> {
    /// The position that the query is about, after waiting until the read model is fresh enough.
    pub(super) async fn position(&self) -> Result<Option<Position>, Error> {
        let database = self.store.database()?;
        let at = match self.as_of {
            None => None,
            Some(_) if R::HISTORY == History::None => {
                return Err(Error::NoHistory { projection: R::TABLE });
            }
            Some(as_of) => Some(position_of(self.store, as_of).await?),
        };
        if let Some((_, reached)) = self.elsewhere {
            // They are as they are.
            return match at {
                Some(needed) if needed > reached => {
                    Err(Error::NotReached { projection: R::TABLE, reached, needed })
                }
                at => Ok(at),
            };
        }
        if let Some(needed) = at {
            let kept_from = kept_from::<R>(database).await?;
            if needed < kept_from {
                return Err(Error::Forgotten { projection: R::TABLE, kept_from, needed });
            }
        }
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

/// The position that a moment is.
pub(crate) async fn position_of(store: &EventStore, as_of: AsOf) -> Result<Position, Error> {
    match as_of {
        AsOf::Time(time) => Ok(store.position_at(time).await?),
        AsOf::Position(position) => Ok(position),
        _ => Err(Error::NotAMoment),
    }
}

/// From where on a read model has its history.
async fn kept_from<R: ReadModel>(database: &Database) -> Result<Position, Error> {
    let sql = database.schema().sql("select kept_from from {schema}.projections where name = $1");
    let failed = || failed::<R>("see from where on its history is kept");
    let client = database.client().await?;
    let statement = client.prepare_cached(&sql).await.map_err(failed())?;
    let row = client.query_opt(&statement, &[&checkpoint_name::<R>()]).await.map_err(failed())?;
    Ok(row.map_or(Position::START, |row| Position::new(row.get(0))))
}

/// Where the read model is; `None` if it has no tables yet, which come with the checkpoint.
pub(super) async fn reached<R: ReadModel>(database: &Database) -> Result<Option<Position>, Error> {
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

pub(super) async fn wait<R: ReadModel>(
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
