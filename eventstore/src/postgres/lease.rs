//! Leases: who runs what, for how long, in which epoch.

use std::time::Duration;

use uuid::Uuid;

use super::{Database, GenericClient, database_error};
use crate::{
    error::Error,
    metrics::{self, LeaseFrom},
};

/// How a lease is held.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct LeaseOptions {
    /// How long it lasts without renewal. A holder that dies is replaced after this time.
    pub time_to_live: Duration,
}

impl Default for LeaseOptions {
    fn default() -> Self {
        Self { time_to_live: Duration::from_secs(5) }
    }
}

/// A lease: a row that says who runs something, until when, and in which epoch.
///
/// Each new holder gets a higher epoch. Time alone keeps no two holders apart, since one can be
/// paused past its end; what a holder writes must be conditional on the epoch as well, as
/// [`Checkpoint`](super::Checkpoint) is. The database's clock decides. No session lock and no open
/// transaction is involved, so leases work behind a transaction pooler.
///
/// The technique is Gray and Cheriton's lease (1989) with a fencing token.
#[derive(Debug)]
pub struct Lease {
    database: Database,
    name: String,
    owner: String,
    epoch: i64,
    options: LeaseOptions,
}

impl Lease {
    /// Takes the lease if it is free or has expired; `None` if another holds it.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn try_acquire(
        database: &Database,
        name: &str,
        options: LeaseOptions,
    ) -> Result<Option<Self>, Error> {
        let owner = Uuid::now_v7().to_string();
        let sql = database.schema().sql(
            "with held as (select expires_at from {schema}.leases where name = $1)
             insert into {schema}.leases as l (name, owner, epoch, expires_at)
             values ($1, $2, 1, clock_timestamp() + $3 * interval '1 millisecond')
             on conflict (name) do update
             set owner = excluded.owner, epoch = l.epoch + 1, expires_at = excluded.expires_at
             where l.expires_at < clock_timestamp()
             returning epoch, coalesce((select expires_at > '-infinity' from held), false)",
        );
        let row = database
            .bookkeeping()
            .await?
            .query_opt(&sql, &[&name, &owner, &milliseconds(options)])
            .await
            .map_err(|error| database_error("acquire a lease", error))?;
        if let Some(row) = &row {
            let from = if row.get(1) { LeaseFrom::Expired } else { LeaseFrom::Free };
            metrics::lease_taken(name, from);
        }
        Ok(row.map(|row| Self {
            database: database.clone(),
            name: name.to_owned(),
            owner,
            epoch: row.get(0),
            options,
        }))
    }

    /// The epoch of this holder.
    pub fn epoch(&self) -> i64 {
        self.epoch
    }

    /// How often to renew it: three times in its time to live.
    pub fn renewal_interval(&self) -> Duration {
        self.options.time_to_live / 3
    }

    /// Prolongs the lease by its time to live.
    ///
    /// # Errors
    /// [`Error::Fenced`] if another has taken it.
    pub async fn renew(&self) -> Result<(), Error> {
        let sql = self.database.schema().sql(
            "update {schema}.leases
             set expires_at = clock_timestamp() + $4 * interval '1 millisecond'
             where name = $1 and owner = $2 and epoch = $3",
        );
        let renewed = self
            .database
            .bookkeeping()
            .await?
            .execute(&sql, &[&self.name, &self.owner, &self.epoch, &milliseconds(self.options)])
            .await
            .map_err(|error| database_error("renew a lease", error))?;
        if renewed == 1 {
            return Ok(());
        }
        metrics::lease_lost(&self.name);
        Err(Error::Fenced { name: self.name.clone() })
    }

    /// Makes sure that no other holder has taken it, and that none does before the caller's transaction
    /// ends, for what no checkpoint guards. Renewing waits as long.
    ///
    /// # Errors
    /// [`Error::Fenced`] if another has taken it; roll the transaction back then.
    pub async fn hold(&self, transaction: &impl GenericClient) -> Result<(), Error> {
        let sql = self.database.schema().sql(
            "select from {schema}.leases where name = $1 and owner = $2 and epoch = $3 for share",
        );
        let held = transaction.query(&sql, &[&self.name, &self.owner, &self.epoch]).await;
        let held = held.map_err(|error| database_error("hold a lease", error))?;
        if held.len() == 1 { Ok(()) } else { Err(Error::Fenced { name: self.name.clone() }) }
    }

    /// Gives the lease back, so that the next holder need not wait for its end.
    ///
    /// # Errors
    /// If the database fails; the lease then ends by itself.
    pub async fn release(self) -> Result<(), Error> {
        let sql = self.database.schema().sql(
            "update {schema}.leases set expires_at = '-infinity'
             where name = $1 and owner = $2 and epoch = $3",
        );
        self.database
            .bookkeeping()
            .await?
            .execute(&sql, &[&self.name, &self.owner, &self.epoch])
            .await
            .map(drop)
            .map_err(|error| database_error("release a lease", error))
    }
}

fn milliseconds(options: LeaseOptions) -> f64 {
    options.time_to_live.as_secs_f64() * 1000.0
}
