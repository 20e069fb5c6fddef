//! Installing and resetting projections in SQL.

use std::panic::AssertUnwindSafe;

use annals_eventstore::{
    EventStore, Position,
    postgres::{Database, SqlProjection},
};
use futures::FutureExt;

use crate::{
    control::{Kind, stored},
    error::Error,
    guard::{Cause, panicked},
    register::{Wanted, alone},
    worker::failure::passes,
};

pub(crate) fn wanted(projection: &dyn SqlProjection) -> Wanted {
    Wanted {
        kind: Kind::Sql,
        name: projection.name().to_owned(),
        version: projection.version(),
        slices: projection.slices().max(1),
    }
}

/// Runs what a user wrote. A panic is a failure like any other.
pub(crate) async fn asked(
    projection: &str,
    action: &'static str,
    work: impl Future<Output = Result<(), Cause>>,
) -> Result<(), Error> {
    let outcome = AssertUnwindSafe(work).catch_unwind().await;
    outcome.unwrap_or_else(|payload| Err(panicked(&*payload))).map_err(|source| {
        let retryable = passes(&source);
        Error::Sql { projection: projection.to_owned(), action, source, retryable }
    })
}

/// Has it create what it needs, if it is new.
pub(crate) async fn install(
    database: &Database,
    projection: &dyn SqlProjection,
    wanted: &Wanted,
) -> Result<(), Error> {
    // As a rule it is there, and takes no lock.
    if let Some(known) = wanted.look(database, &database.client().await?).await? {
        return wanted.fits(known);
    }
    let (transaction, known) = wanted.lock(database).await?;
    if let Some(known) = known {
        return wanted.fits(known);
    }
    let client = transaction.client()?;
    asked(&wanted.name, "create what it needs", projection.install(client)).await?;
    wanted.register(database, client, Position::START).await?;
    Ok(transaction.commit().await?)
}

/// Builds it anew in place where its version is higher than that of what is there, or its slices are others.
pub(crate) async fn change_over(
    store: &EventStore,
    projection: &dyn SqlProjection,
    wanted: &Wanted,
) -> Result<(), Error> {
    let database = store.database()?;
    let changing = async {
        let (transaction, known) = wanted.lock(database).await?;
        let Some(known) = known else { return Ok(()) };
        match wanted.fits(known) {
            Ok(()) => return Ok(()),
            // What is there is newer than this program.
            Err(outdated) if known.version > wanted.version => return Err(outdated),
            Err(_) => {}
        }
        let client = transaction.client()?;
        asked(&wanted.name, "take away what it has made", projection.reset(client)).await?;
        wanted.forget(database, client).await?;
        wanted.forget_parked(database, client).await?;
        asked(&wanted.name, "create what it needs", projection.install(client)).await?;
        wanted.register(database, client, Position::START).await?;
        Ok(transaction.commit().await?)
    };
    alone(store, wanted, changing).await
}

/// Takes away what a projection in SQL has made, with its checkpoint and what is parked. A worker then builds it
/// anew from the first event on. If it ran inline, that ends.
///
/// # Errors
/// [`Error::InUse`](crate::ProjectionError::InUse) while a worker runs it, whatever
/// [`SqlProjection::reset`] fails with, or a failure of the database.
pub async fn reset_sql(store: &EventStore, projection: &impl SqlProjection) -> Result<(), Error> {
    let (database, wanted) = (store.database()?, wanted(projection));
    let resetting = async {
        let (transaction, _) = wanted.lock(database).await?;
        let client = transaction.client()?;
        // First, so that no append is under way that it sees.
        database.forget_inline(client, &stored(&wanted.name)).await?;
        asked(&wanted.name, "take away what it has made", projection.reset(client)).await?;
        wanted.forget(database, client).await?;
        wanted.forget_parked(database, client).await?;
        Ok(transaction.commit().await?)
    };
    alone(store, &wanted, resetting).await
}
