//! What is due of sagas: timers, wishes, and calls that somebody has to make.

use std::time::Duration;

use uuid::Uuid;

use super::{Process, ledger::Ledger};
use crate::{control::stored, error::Error};

/// A call that this worker is to make.
#[derive(Debug)]
pub(super) struct Claim {
    pub(super) key: String,
    pub(super) attempt: u32,
}

impl<S: Process> Ledger<S> {
    /// Sagas whose timers are due, or of whom somebody has asked something.
    pub(super) async fn due(&self, limit: i64) -> Result<Vec<String>, Error> {
        let failed = |source| Error::Bookkeeping { action: "look for timers that are due", source };
        let sql = self.database.schema().sql(
            "select key from {schema}.sagas where saga = $1 and look_at <= clock_timestamp()
             order by look_at limit $2",
        );
        let client = self.database.client().await?;
        let statement = client.prepare_cached(&sql).await.map_err(failed)?;
        let rows = client.query(&statement, &[&S::CATEGORY, &limit]).await.map_err(failed)?;
        Ok(rows.iter().map(|row| row.get(0)).collect())
    }

    /// Takes calls that are due, unless the saga is paused. Nobody else takes them for a while; then whoever comes.
    pub(super) async fn claim(
        &self,
        worker: Uuid,
        limit: usize,
        lasts: Duration,
    ) -> Result<Vec<Claim>, Error> {
        let failed = |source| Error::Bookkeeping { action: "take calls of sagas", source };
        let sql = self.database.schema().sql(include_str!("sql/claim.sql"));
        let client = self.database.client().await?;
        let statement = client.prepare_cached(&sql).await.map_err(failed)?;
        let (limit, lasts) = (limit as i64, milliseconds(lasts));
        let rows = client
            .query(&statement, &[&S::CATEGORY, &limit, &worker, &lasts, &stored(S::CATEGORY)])
            .await
            .map_err(failed)?;
        let claim = |row: &tokio_postgres::Row| Claim {
            key: row.get(0),
            attempt: row.get::<_, i32>(1).unsigned_abs(),
        };
        Ok(rows.iter().map(claim).collect())
    }

    /// Keeps calls for longer.
    pub(super) async fn renew(
        &self,
        worker: Uuid,
        keys: &[String],
        lasts: Duration,
    ) -> Result<(), Error> {
        let failed = |source| Error::Bookkeeping { action: "keep calls of sagas", source };
        let sql = self.database.schema().sql(include_str!("sql/renew.sql"));
        let client = self.database.client().await?;
        let renewed =
            client.execute(&sql, &[&S::CATEGORY, &worker, &keys, &milliseconds(lasts)]).await;
        renewed.map(drop).map_err(failed)
    }

    /// Gives back all calls that this worker has: they are due at once.
    pub(super) async fn release(&self, worker: Uuid) -> Result<(), Error> {
        let failed = |source| Error::Bookkeeping { action: "give calls of sagas back", source };
        let sql = self.database.schema().sql(include_str!("sql/release.sql"));
        let client = self.database.client().await?;
        client.execute(&sql, &[&S::CATEGORY, &worker]).await.map(drop).map_err(failed)
    }

    /// How long until the next timer, and until the next call, if there are any.
    pub(super) async fn next(&self) -> Result<(Option<Duration>, Option<Duration>), Error> {
        let failed = |source| Error::Bookkeeping { action: "see what is due next", source };
        let sql = self.database.schema().sql(include_str!("sql/next.sql"));
        let client = self.database.client().await?;
        let statement = client.prepare_cached(&sql).await.map_err(failed)?;
        let row = client
            .query_one(&statement, &[&S::CATEGORY, &stored(S::CATEGORY)])
            .await
            .map_err(failed)?;
        let wait = |column| {
            let seconds: Option<f64> = row.get(column);
            // A time that is too far to be told is far enough.
            seconds.map(|seconds| {
                Duration::try_from_secs_f64(seconds.max(0.0)).unwrap_or(Duration::MAX)
            })
        };
        Ok((wait(0), wait(1)))
    }
}

fn milliseconds(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1000.0
}
