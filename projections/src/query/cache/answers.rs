//! Queries that take their answers from a cache.

use std::{sync::Arc, time::Duration};

use annals_eventstore::Position;
use tokio_postgres::{Row, types::ToSql};

use super::{
    super::{Consistency, Query, moment::position_of, unanswered},
    Answer, Key, QueryCache, Standing, TypesError,
};
use crate::{
    error::Error,
    read_model::{History, ReadModel},
    table::Sql,
};

impl<R: ReadModel> Query<'_, R> {
    /// The answer from the query's cache. `None` where there is no cache, or it is of no use for this query: then the
    /// database is to be asked.
    ///
    /// `more` are parameters behind those of the filter; that of the moment, whose number the statement is made with, is
    /// the last one.
    pub(in super::super) async fn cached<T>(
        &self,
        more: &[&(dyn ToSql + Sync)],
        statement: impl Fn(&Sql, Option<usize>) -> String,
        read: impl Fn(&[Row]) -> Result<T, tokio_postgres::Error>,
    ) -> Result<Option<T>, Error>
    where
        T: Clone + Send + Sync + 'static,
    {
        let Some(cache) = self.cache else { return Ok(None) };
        if self.elsewhere.is_some() || self.consistency == Consistency::Strong {
            return Ok(None);
        }
        let at = match self.as_of {
            None => None,
            Some(_) if R::HISTORY == History::None => return Ok(None),
            Some(as_of) => Some(position_of(self.store, as_of).await?),
        };
        let needed = match self.consistency {
            Consistency::AtLeast(position, _) => Some(at.map_or(position, |at| at.max(position))),
            _ => at,
        };
        let Some(standing) = self.standing(cache, needed).await? else { return Ok(None) };
        let rests_on = match at {
            None => &standing.present,
            Some(at) if at >= standing.kept_from => &standing.past,
            Some(_) => return Ok(None),
        };
        let database = self.store.database()?;
        let at = at.map(Position::get);
        let mut params = self.params();
        params.extend(more);
        let number = at.map(|_| params.len() + 1);
        params.extend(at.as_ref().map(|at| at as &(dyn ToSql + Sync)));
        let sql: Arc<str> = statement(&Sql::of::<R>(database.read_models()), number).into();
        let types = cache.types(database, &sql).await.map_err(|error| match error {
            TypesError::Store(error) => error.into(),
            TypesError::Refused(error) => unanswered::<R>()(error),
        })?;
        let Some(key) = Key::of::<R>(sql.clone(), &types, &params, rests_on.clone()) else {
            return Ok(None);
        };
        let weight = key.weight();
        // As without a cache. What is read is as new as what it is kept under, or newer.
        let load = async {
            self.position().await?;
            let client = database.client().await?;
            let rows = client.query_cached(&sql, &params).await.map_err(unanswered::<R>())?;
            drop(client);
            // Its history may have been forgotten since, before the rows were read.
            if at.is_some() {
                self.position().await?;
            }
            let sizes = rows.iter().map(|row| row.raw_size_bytes() + size_of::<R>());
            let weight = weight + sizes.sum::<usize>();
            Ok(Answer::new(read(&rows).map_err(unanswered::<R>())?, weight))
        };
        cache.answer::<R, T>(key, load).await
    }

    /// How the read model stands, once it has come to what is needed.
    async fn standing(
        &self,
        cache: &QueryCache,
        needed: Option<Position>,
    ) -> Result<Option<Arc<Standing>>, Error> {
        let database = self.store.database()?;
        let standing = cache.standing::<R>(database, cache.0.max_age).await;
        match (standing, needed) {
            (Some(standing), Some(needed)) if standing.reached < needed => {
                // It may have come to it by now; if not, this waits, or says so.
                self.position().await?;
                let standing = cache.standing::<R>(database, Duration::ZERO).await;
                Ok(standing.filter(|standing| standing.reached >= needed))
            }
            (standing, _) => Ok(standing),
        }
    }
}
