//! Leases: who runs what, for how long, in which epoch.

use std::{
    sync::{Arc, LazyLock, Mutex, PoisonError},
    time::{Duration, Instant},
};

use tokio::{
    task::JoinSet,
    time::{sleep, sleep_until, timeout_at},
};
use uuid::Uuid;

use super::{Database, GenericClient, database_error};
#[cfg(feature = "fail-points")]
use crate::testkit::faults::Injected;
use crate::{
    error::{Error, chain},
    fail_points::fail_point,
    metrics::{self, LeaseFrom},
};

/// How a lease is held.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct LeaseOptions {
    /// How long it lasts without renewal: 5 seconds unless set. A holder that dies is replaced after this time.
    pub time_to_live: Duration,
}

impl LeaseOptions {
    /// A lease that lasts so long without renewal. It is renewed three times in that time, so choose one that is
    /// long against a pause of the process and a detour of the network, seconds rather than milliseconds.
    pub const fn new(time_to_live: Duration) -> Self {
        Self { time_to_live }
    }
}

impl Default for LeaseOptions {
    fn default() -> Self {
        Self::new(Duration::from_secs(5))
    }
}

/// A lease: a row that says who runs something, until when, and in which epoch.
///
/// Each new holder gets a higher epoch. Time alone keeps no two holders apart, since one can be
/// paused past its end; what a holder writes must be conditional on the epoch as well, as
/// [`Checkpoint`](super::Checkpoint) is. The database's clock decides. No session lock and no open
/// transaction is involved, so leases work behind a transaction pooler.
///
/// Operators see the owner as `host:process:number`, in the table `leases` and wherever leases are shown.
/// For a singleton of your own, [`leader`](crate::leader) is more convenient.
///
/// The technique is Gray and Cheriton's lease (1989) with a fencing token.
#[derive(Debug)]
pub struct Lease {
    database: Database,
    name: String,
    owner: String,
    epoch: i64,
    options: LeaseOptions,
    /// Until when nobody else can have it, by this process's clock.
    until: Mutex<Instant>,
}

/// For how long to ask again for a lease that was given back and cannot be had yet, and how often.
const ENDING: Duration = Duration::from_millis(500);
const AGAIN: Duration = Duration::from_millis(10);

/// What comes of asking for a lease.
#[derive(Debug)]
pub(crate) enum Asked {
    /// It is ours.
    Taken(Lease),
    /// It is another's, for so long if that one does not renew it.
    Held { left: Duration },
}

impl Lease {
    /// Takes the lease if it is free or has expired; `None` if another holds it.
    ///
    /// Not cancellation safe: if the future is dropped, the lease may be taken, and ends by itself.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn try_acquire(
        database: &Database,
        name: &str,
        options: LeaseOptions,
    ) -> Result<Option<Self>, Error> {
        match Self::ask(database, name, options).await? {
            Asked::Taken(lease) => Ok(Some(lease)),
            Asked::Held { .. } => Ok(None),
        }
    }

    pub(crate) async fn ask(
        database: &Database,
        name: &str,
        options: LeaseOptions,
    ) -> Result<Asked, Error> {
        let owner = owner();
        let sql = database.schema().sql(include_str!("sql/acquire_lease.sql"));
        let began = Instant::now();
        let (asked, row) = loop {
            let client = database.bookkeeping().await?;
            // Before the database counts from its own now, so that it is over here before it is there.
            let asked = Instant::now();
            let row = client
                .query_one(&sql, &[&name, &owner, &milliseconds(options)])
                .await
                .map_err(|error| database_error("acquire a lease", error))?;
            let (epoch, is_given_back): (Option<i64>, bool) = (row.get(0), row.get(3));
            if epoch.is_some() || !is_given_back || began.elapsed() > ENDING {
                break (asked, row);
            }
            // Whoever gave it back held it in a transaction, which was dropped and is about to end.
            drop(client);
            sleep(AGAIN).await;
        };
        Ok(match row.get(0) {
            Some(epoch) => {
                let from = if row.get(2) { LeaseFrom::Expired } else { LeaseFrom::Free };
                metrics::lease_taken(name, from);
                fail_point!("lease-taken", |_| Err(Injected::at("lease-taken").into()));
                Asked::Taken(Self {
                    database: database.clone(),
                    name: name.to_owned(),
                    owner,
                    epoch,
                    options,
                    until: Mutex::new(asked + options.time_to_live),
                })
            }
            None => {
                let left = row.get::<_, Option<f64>>(1).unwrap_or_default();
                Asked::Held { left: Duration::try_from_secs_f64(left).unwrap_or_default() }
            }
        })
    }

    /// What it is called.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The epoch of this holder.
    pub fn epoch(&self) -> i64 {
        self.epoch
    }

    /// How often to renew it: three times in its time to live.
    pub fn renewal_interval(&self) -> Duration {
        self.options.time_to_live / 3
    }

    /// True if it was not renewed in time, by this process's clock: another may have it. False says nothing once
    /// it is said, since the process can be paused behind it.
    pub fn is_over(&self) -> bool {
        self.until() <= Instant::now()
    }

    fn until(&self) -> Instant {
        *self.until.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Prolongs the lease by its time to live.
    ///
    /// # Errors
    /// [`Error::Fenced`] if another has taken it.
    pub async fn renew(&self) -> Result<(), Error> {
        fail_point!("lease-renewing", |_| Err(Injected::at("lease-renewing").into()));
        let sql = self.database.schema().sql(
            "update {schema}.leases
             set expires_at = clock_timestamp() + $4 * interval '1 millisecond'
             where name = $1 and owner = $2 and epoch = $3",
        );
        let client = self.database.bookkeeping().await?;
        let asked = Instant::now();
        let renewed = client
            .execute(&sql, &[&self.name, &self.owner, &self.epoch, &milliseconds(self.options)])
            .await
            .map_err(|error| database_error("renew a lease", error))?;
        if renewed != 1 {
            metrics::lease_lost(&self.name);
            return Err(Error::Fenced { name: self.name.clone() });
        }
        *self.until.lock().unwrap_or_else(PoisonError::into_inner) =
            asked + self.options.time_to_live;
        fail_point!("lease-renewed", |_| Err(Injected::at("lease-renewed").into()));
        Ok(())
    }

    /// Renews it for as long as that succeeds in time, and returns why it does so no longer: another has it
    /// ([`Error::Fenced`]), or the database was not to be had. A failure that may pass is tried again
    /// until its time is over.
    ///
    /// Cancellation safe. Run it in a task of its own if work that is long at a stretch would hold it up.
    pub async fn keep(&self) -> Error {
        let interval = self.renewal_interval();
        let mut pause = interval;
        loop {
            sleep(pause).await;
            // A process that was paused asks once more: nobody need have taken it.
            let until = self.until().max(Instant::now() + interval);
            pause = match timeout_at(until.into(), self.renew()).await {
                Ok(Ok(())) => interval,
                Ok(Err(error)) if error.is_retryable() && !self.is_over() => {
                    tracing::debug!(lease = self.name, error = chain(&error), "not renewed yet");
                    interval / 4
                }
                Ok(Err(error)) => return error,
                Err(elapsed) => {
                    let action = "renew a lease in time";
                    return Error::Database { action, source: Box::new(elapsed), retryable: true };
                }
            };
        }
    }

    /// Does something for as long as it can be [kept](Self::keep), in a task of its own, and gives it back. The work
    /// is dropped if it can be no longer.
    ///
    /// # Errors
    /// What the work fails with, or why it cannot be kept.
    pub async fn keep_while<T, E>(
        self: &Arc<Self>,
        work: impl Future<Output = Result<T, E>>,
    ) -> Result<T, E>
    where
        E: From<Error>,
    {
        let kept = self.clone();
        let mut keeping = JoinSet::new();
        keeping.spawn(async move { kept.keep().await });
        let outcome = tokio::select! {
            Some(Ok(error)) = keeping.join_next() => Err(error.into()),
            outcome = work => outcome,
        };
        keeping.shutdown().await;
        if let Err(error) = self.release().await {
            let lease = &self.name;
            tracing::debug!(lease, error = chain(&error), "not given back; it ends by itself");
        }
        outcome
    }

    /// Waits until it was not renewed in time.
    pub(crate) async fn ended(&self) {
        while !self.is_over() {
            sleep_until(self.until().into()).await;
        }
    }

    /// Makes sure that no other holder has taken it, and that none does before the caller's transaction
    /// ends, for what no checkpoint guards. Renewals go on meanwhile.
    ///
    /// # Errors
    /// [`Error::Fenced`] if another has taken it; roll the transaction back then.
    pub async fn hold(&self, transaction: &impl GenericClient) -> Result<(), Error> {
        let sql = "select from {schema}.leases where name = $1 and owner = $2 and epoch = $3
                   for key share";
        let sql = self.database.schema().sql(sql);
        let held = transaction.query(&sql, &[&self.name, &self.owner, &self.epoch]).await;
        self.held(held)
    }

    /// The same, and the database ends the transaction if it is idle for the lease's time to live: a holder that is
    /// paused in it does not keep its successor waiting for longer.
    pub(crate) async fn guard(&self, transaction: &impl GenericClient) -> Result<(), Error> {
        let sql = self.database.schema().sql(
            "select set_config('idle_in_transaction_session_timeout', $4, true)
             from (select from {schema}.leases where name = $1 and owner = $2 and epoch = $3
                   for key share) held",
        );
        let patience = self.options.time_to_live.as_millis().clamp(1000, i32::MAX as u128);
        let patience = patience.to_string();
        let params: [&(dyn tokio_postgres::types::ToSql + Sync); 4] =
            [&self.name, &self.owner, &self.epoch, &patience];
        self.held(transaction.query(&sql, &params).await)
    }

    fn held(
        &self,
        rows: Result<Vec<tokio_postgres::Row>, tokio_postgres::Error>,
    ) -> Result<(), Error> {
        let rows = rows.map_err(|error| database_error("hold a lease", error))?;
        if rows.len() == 1 { Ok(()) } else { Err(Error::Fenced { name: self.name.clone() }) }
    }

    /// Gives the lease back, so that the next holder need not wait for its end. Nothing is renewed or held by it
    /// afterwards.
    ///
    /// # Errors
    /// If the database fails; the lease then ends by itself.
    pub async fn release(&self) -> Result<(), Error> {
        // Without an owner: a renewal that is still on its way comes to nothing.
        let sql = self.database.schema().sql(
            "update {schema}.leases set owner = '', expires_at = '-infinity'
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

/// Where the owner is, for people, and a number, so that no two owners are the same.
fn owner() -> String {
    static PROCESS: LazyLock<String> = LazyLock::new(|| {
        let host = whoami::hostname().unwrap_or_else(|_| "unknown".to_owned());
        format!("{host}:{}", std::process::id())
    });
    // The end of such an id is drawn at random.
    format!("{}:{:08x}", *PROCESS, Uuid::now_v7().as_u128() as u32)
}

fn milliseconds(options: LeaseOptions) -> f64 {
    options.time_to_live.as_secs_f64() * 1000.0
}
