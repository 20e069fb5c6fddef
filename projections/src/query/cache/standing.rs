//! What is known of read models, for how long, and finding it out anew.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Instant,
};

use annals_eventstore::{Position, postgres::Database};
use futures::{
    FutureExt,
    future::{BoxFuture, Shared},
};
use tokio_postgres::Error;

use crate::{
    read_model::ReadModel,
    table::{Sql, checkpoint_name},
};

/// What the answers of a read model rest on.
#[derive(Debug)]
pub(super) struct Standing {
    pub(super) reached: Position,
    pub(super) kept_from: Position,
    /// Another whenever its rows are others.
    pub(super) present: Arc<str>,
    /// Another when its past is another: its tables were built anew, or its history was forgotten.
    pub(super) past: Arc<str>,
}

/// What a look has shown; `None` where answers cannot be kept.
#[derive(Clone, Debug)]
struct Seen {
    /// When it was asked: all that was committed by then was seen.
    asked: Instant,
    standing: Option<Arc<Standing>>,
}

/// One look for all who need it. `None` if it failed.
type Look = Shared<BoxFuture<'static, Option<Seen>>>;

#[derive(Debug, Default)]
struct Known {
    last: Option<Seen>,
    looking: Option<(Instant, Look)>,
}

/// What is known of each read model, by its table.
#[derive(Debug, Default)]
pub(super) struct Standings(Mutex<HashMap<&'static str, Known>>);

impl Standings {
    /// How a read model stands, as it was seen at this time or later. `None` where answers cannot be kept, or if it
    /// cannot be found out.
    pub(super) async fn of<R: ReadModel>(
        &self,
        database: &Database,
        since: Instant,
    ) -> Option<Arc<Standing>> {
        let (asked, looking) = {
            let mut all = self.all();
            let known = all.entry(R::TABLE).or_default();
            if let Some(seen) = known.last.as_ref().filter(|seen| seen.asked >= since) {
                return seen.standing.clone();
            }
            match &known.looking {
                Some((asked, looking)) if *asked >= since => (*asked, looking.clone()),
                _ => {
                    let asked = Instant::now();
                    let looking = look::<R>(database.clone(), asked).boxed().shared();
                    known.looking = Some((asked, looking.clone()));
                    (asked, looking)
                }
            }
        };
        let seen = looking.await;
        let mut all = self.all();
        let known = all.entry(R::TABLE).or_default();
        if known.looking.as_ref().is_some_and(|(other, _)| *other == asked) {
            known.looking = None;
        }
        let seen = seen?;
        if known.last.as_ref().is_none_or(|last| last.asked < seen.asked) {
            known.last = Some(seen.clone());
        }
        seen.standing
    }

    fn all(&self) -> MutexGuard<'_, HashMap<&'static str, Known>> {
        // It is whole after each assignment.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn look<R: ReadModel>(database: Database, asked: Instant) -> Option<Seen> {
    match standing::<R>(&database).await {
        Ok(standing) => Some(Seen { asked, standing: standing.map(Arc::new) }),
        Err(error) => {
            tracing::debug!(read_model = R::TABLE, %error, "answers are not taken from the cache");
            None
        }
    }
}

async fn standing<R: ReadModel>(
    database: &Database,
) -> Result<Option<Standing>, Box<dyn std::error::Error + Send + Sync>> {
    let sql = database.schema().sql(include_str!("../../sql/standing.sql"));
    let table = Sql::of::<R>(database.read_models()).name("");
    let client = database.client().await?;
    let statement = client.prepare_cached(&sql).await?;
    let row = client.query_opt(&statement, &[&checkpoint_name::<R>(), &table]).await?;
    let standing = |row: tokio_postgres::Row| -> Result<Standing, Error> {
        let (moved, past): (&str, &str) = (row.try_get(2)?, row.try_get(3)?);
        Ok(Standing {
            reached: Position::new(row.try_get(0)?),
            kept_from: Position::new(row.try_get(1)?),
            present: format!("{past}: {moved}").into(),
            past: past.into(),
        })
    };
    Ok(row.map(standing).transpose()?)
}
