//! A transaction that owns its connection, so that a value can hold it open from call to call.

use uuid::Uuid;

use super::{Client, Database, database_error, is_lost};
use crate::error::Error;

/// The SQLSTATE by which a commit says that its transaction was ended before.
const ENDED: &str = "AN034";

/// A READ COMMITTED transaction that owns its connection.
///
/// Get one from [`Database::begin`]. Dropping it rolls it back: the connection goes back into the pool
/// when that is done, and is closed if it cannot be.
#[derive(Debug)]
pub struct OwnedTransaction {
    connection: Connection,
    /// Known to this transaction alone, so that it is noticed if another took its place.
    mark: String,
}

/// A connection that goes back into its pool only once its transaction has surely ended.
#[derive(Debug)]
struct Connection(Option<Client>);

impl Drop for Connection {
    fn drop(&mut self) {
        if let Some(client) = self.0.take() {
            // Out of the pool, and closed: the server rolls back.
            client.discard();
        }
    }
}

impl Database {
    /// Begins a transaction that owns its connection.
    ///
    /// Cancellation safe: a future that is dropped leaves no open transaction behind.
    ///
    /// # Errors
    /// As [`client`](Self::client), or if the database fails.
    pub async fn begin(&self) -> Result<OwnedTransaction, Error> {
        self.begin_with("").await
    }

    /// The same with statements that are executed at once, `set local` above all: one round trip for all.
    ///
    /// # Errors
    /// As [`begin`](Self::begin).
    pub async fn begin_with(&self, statements: &str) -> Result<OwnedTransaction, Error> {
        let mut connection = Connection(Some(self.client().await?.pinned()));
        // As the text of a UUID it needs no quoting.
        let mark = Uuid::now_v7().to_string();
        let begin = format!(
            "begin isolation level read committed; set local annals.unit = '{mark}'; {statements}"
        );
        let begun = match &connection.0 {
            Some(client) => client.batch_execute(&begin).await,
            None => return Err(Error::Closed),
        };
        match begun {
            Ok(()) => Ok(OwnedTransaction { connection, mark }),
            // A pooled connection that died while idle shows it at its first use. A new one is tried.
            Err(error) if is_lost(&error) => {
                drop(std::mem::replace(
                    &mut connection,
                    Connection(Some(self.client().await?.pinned())),
                ));
                if let Some(client) = &connection.0 {
                    let failed = |error| database_error("begin a transaction", error);
                    client.batch_execute(&begin).await.map_err(failed)?;
                }
                Ok(OwnedTransaction { connection, mark })
            }
            Err(error) => Err(database_error("begin a transaction", error)),
        }
    }
}

impl OwnedTransaction {
    /// The connection, for statements in this transaction. Do not begin or end transactions on it;
    /// savepoints are fine.
    ///
    /// # Errors
    /// None while the transaction is open.
    pub fn client(&self) -> Result<&Client, Error> {
        self.connection.0.as_ref().ok_or(Error::Closed)
    }

    /// Makes sure that it is still the transaction that was begun, and has not failed.
    ///
    /// # Errors
    /// [`Error::UnitEnded`] if a statement ended it; a failure of the database if one failed in it.
    pub async fn check(&self) -> Result<(), Error> {
        let failed = |error| database_error("go on with a transaction", error);
        let sql = "select current_setting('annals.unit', true) = $1
                and current_setting('transaction_isolation') = 'read committed'";
        let client = self.client()?;
        let statement = client.prepare_cached(sql).await.map_err(failed)?;
        let row = client.query_one(&statement, &[&self.mark]).await.map_err(failed)?;
        if row.get::<_, Option<bool>>(0) == Some(true) { Ok(()) } else { Err(Error::UnitEnded) }
    }

    /// Commits.
    ///
    /// Not cancellation safe: if the future is dropped, it is committed as a whole or not at all.
    ///
    /// # Errors
    /// [`Error::Indeterminate`] if the connection was lost meanwhile. With any other error, nothing is
    /// committed: [`Error::UnitEnded`] if a statement ended it, or a failure of the database, for example
    /// because a statement in it failed.
    pub async fn commit(self) -> Result<(), Error> {
        // Alone, a commit would succeed without a transaction, and roll back one in which a statement
        // failed, without an error.
        let probe_and_commit = format!(
            "do $$ begin if current_setting('annals.unit', true) is distinct from '{}' then \
             raise 'the transaction was ended' using errcode = '{ENDED}'; end if; end $$; commit",
            self.mark
        );
        self.client()?.batch_execute(&probe_and_commit).await.map_err(|error| {
            if is_lost(&error) {
                Error::Indeterminate { source: Box::new(error) }
            } else if error.code().is_some_and(|state| state.code() == ENDED) {
                Error::UnitEnded
            } else {
                database_error("commit", error)
            }
        })?;
        self.give_back();
        Ok(())
    }

    /// Rolls back. Dropping does so too; this waits until it is done.
    ///
    /// # Errors
    /// If the connection is lost; then the database rolls back by itself.
    pub async fn rollback(self) -> Result<(), Error> {
        let failed = |error| database_error("roll back", error);
        self.client()?.batch_execute("rollback").await.map_err(failed)?;
        self.give_back();
        Ok(())
    }

    /// The transaction has ended.
    fn give_back(mut self) {
        drop(self.connection.0.take());
    }
}

impl Drop for OwnedTransaction {
    fn drop(&mut self) {
        let connection = Connection(self.connection.0.take());
        if connection.0.is_none() {
            return;
        }
        // Statements go out in order, so this one comes behind any whose future was dropped. Without
        // a runtime, and if it fails, the connection is closed.
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(async move {
                let mut connection = connection;
                if let Some(client) = &connection.0
                    && client.batch_execute("rollback").await.is_ok()
                {
                    drop(connection.0.take());
                }
            });
        }
    }
}
