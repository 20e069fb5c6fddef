//! What the store knows of projections in SQL and of reactors: their versions, slices and checkpoints.

use std::sync::Arc;

use annals_eventstore::{
    EventStore, Position,
    postgres::{Client, Database, Lease, LeaseOptions, OwnedTransaction},
};
use tokio::task::JoinSet;

use crate::{
    control::{Kind, stored},
    error::Error,
    install::LOCK,
};

/// What a program wants to run.
#[derive(Clone, Debug)]
pub(crate) struct Wanted {
    pub(crate) kind: Kind,
    pub(crate) name: String,
    pub(crate) version: u32,
    pub(crate) slices: u16,
}

/// What there is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Known {
    pub(crate) version: u32,
    pub(crate) slices: u16,
}

impl Wanted {
    /// What is known of it; `None` if nothing is.
    ///
    /// # Errors
    /// [`Error::NameTaken`], or a failure of the database.
    pub(crate) async fn look(
        &self,
        database: &Database,
        client: &Client,
    ) -> Result<Option<Known>, Error> {
        let failed = |source| Error::Bookkeeping { action: "look up a projection", source };
        let sql = "select kind, version, slices from {schema}.projections where name = $1";
        let sql = database.schema().sql(sql);
        let row = client.query_opt(&sql, &[&stored(&self.name)]).await.map_err(failed)?;
        let Some(row) = row else { return Ok(None) };
        let kind = Kind::of(row.get(0));
        if kind != self.kind {
            return Err(Error::NameTaken { projection: self.name.clone(), kind });
        }
        let version = row.get::<_, i32>(1) as u32;
        Ok(Some(Known { version, slices: row.get::<_, i16>(2) as u16 }))
    }

    /// How far all of its slices have come.
    pub(crate) async fn reached(
        &self,
        database: &Database,
        client: &Client,
    ) -> Result<Position, Error> {
        let failed = |source| Error::Bookkeeping { action: "look for a checkpoint", source };
        let sql = database.schema().sql("select coalesce({schema}.reached($1), 0)");
        let row = client.query_one(&sql, &[&stored(&self.name)]).await.map_err(failed)?;
        Ok(Position::new(row.get(0)))
    }

    /// A transaction that has the projection's lock, and what is known of it there.
    pub(crate) async fn lock(
        &self,
        database: &Database,
    ) -> Result<(OwnedTransaction, Option<Known>), Error> {
        let failed = |source| Error::Bookkeeping { action: "lock a projection", source };
        let transaction = database.begin().await?;
        let client = transaction.client()?;
        client.execute(LOCK, &[&self.name]).await.map_err(failed)?;
        let known = self.look(database, client).await?;
        Ok((transaction, known))
    }

    /// Notes one that is never built anew, with its checkpoint where it is to `start`, if it is new.
    ///
    /// # Errors
    /// [`Error::Outdated`] if there is another than is wanted.
    pub(crate) async fn begin(
        &self,
        database: &Database,
        start: impl Future<Output = Result<Position, Error>>,
    ) -> Result<(), Error> {
        if let Some(known) = self.look(database, &database.client().await?).await? {
            return self.fits(known);
        }
        // Without the lock: it may take a while. Of several that come to this, the first one's counts.
        let start = start.await?;
        let (transaction, known) = self.lock(database).await?;
        if let Some(known) = known {
            return self.fits(known);
        }
        self.register(database, transaction.client()?, start).await?;
        Ok(transaction.commit().await?)
    }

    /// Whether what is there is what is wanted.
    ///
    /// # Errors
    /// [`Error::Outdated`] if it is not.
    pub(crate) fn fits(&self, known: Known) -> Result<(), Error> {
        let Self { version, slices, .. } = *self;
        let difference = if known.version != version {
            format!("version {} of it is there, and this is version {version}", known.version)
        } else if known.slices != slices {
            format!("it is worked on in {} slices, and this program wants {slices}", known.slices)
        } else {
            return Ok(());
        };
        Err(Error::Outdated { table: self.name.clone(), difference })
    }

    /// Notes it, with checkpoints at a position.
    pub(crate) async fn register(
        &self,
        database: &Database,
        client: &Client,
        at: Position,
    ) -> Result<(), Error> {
        let failed = |source| Error::Bookkeeping { action: "register a projection", source };
        let register = database.schema().sql(
            "insert into {schema}.projections (name, kind, slices, version) values ($1, $2, $3, $4)",
        );
        let begin = database.schema().sql(
            "insert into {schema}.checkpoints (name, position)
             select name, $2 from unnest({schema}.checkpoints_of($1)) name",
        );
        let (name, kind) = (stored(&self.name), self.kind.as_str());
        let (slices, version) = (self.slices as i16, self.version as i32);
        let registered = client.execute(&register, &[&name, &kind, &slices, &version]).await;
        registered.map_err(failed)?;
        client.execute(&begin, &[&name, &at.get()]).await.map(drop).map_err(failed)
    }

    /// Takes away what is known of it, but for its parked streams.
    pub(crate) async fn forget(&self, database: &Database, client: &Client) -> Result<(), Error> {
        let failed = |source| Error::Bookkeeping { action: "forget a projection", source };
        for sql in [
            "delete from {schema}.checkpoints where name = any ({schema}.checkpoints_of($1))",
            "delete from {schema}.projections where name = $1",
        ] {
            let sql = database.schema().sql(sql);
            client.execute(&sql, &[&stored(&self.name)]).await.map_err(failed)?;
        }
        Ok(())
    }

    pub(crate) async fn forget_parked(
        &self,
        database: &Database,
        client: &Client,
    ) -> Result<(), Error> {
        let failed = |source| Error::Bookkeeping { action: "forget what is parked", source };
        let sql =
            database.schema().sql("delete from {schema}.parked_streams where projection = $1");
        client.execute(&sql, &[&stored(&self.name)]).await.map(drop).map_err(failed)
    }
}

/// Does something to a projection while no worker works on it, and none can.
///
/// # Errors
/// [`Error::InUse`] if one does.
pub(crate) async fn alone<T>(
    store: &EventStore,
    wanted: &Wanted,
    work: impl Future<Output = Result<T, Error>>,
) -> Result<T, Error> {
    let database = store.database()?;
    let failed = |source| Error::Bookkeeping { action: "look for checkpoints", source };
    let sql = database.schema().sql("select {schema}.checkpoints_of($1)");
    let name = stored(&wanted.name);
    let row = database.client().await?.query_one(&sql, &[&name]).await.map_err(failed)?;
    let (mut leases, mut renewing) = (Vec::new(), JoinSet::new());
    let mut in_use = false;
    for name in row.get::<_, Option<Vec<String>>>(0).unwrap_or_default() {
        let Some(lease) = Lease::try_acquire(database, &name, LeaseOptions::default()).await?
        else {
            in_use = true;
            break;
        };
        let lease = Arc::new(lease);
        leases.push(lease.clone());
        renewing.spawn(async move { lease.keep().await });
    }
    let outcome = if in_use {
        Err(Error::InUse { projection: wanted.name.clone() })
    } else {
        tokio::select! {
            outcome = work => outcome,
            Some(Ok(error)) = renewing.join_next() => Err(error.into()),
        }
    };
    renewing.shutdown().await;
    for lease in leases {
        // If not, it ends by itself.
        drop(lease.release().await);
    }
    outcome
}
