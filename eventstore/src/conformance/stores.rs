//! Where the suite gets its stores from.

use std::sync::{Mutex, PoisonError};

use async_trait::async_trait;
use uuid::Uuid;

use crate::{
    error::Error,
    store::{EventStore, Options},
};

/// Opens the stores that behaviours are run on.
#[async_trait]
pub trait Stores: Send + Sync + 'static {
    /// Opens a new store that is empty and that nobody else has, with these options.
    ///
    /// # Errors
    /// If it cannot be opened; then the behaviour that asked for it fails.
    async fn open(&self, options: Options) -> Result<EventStore, Error>;

    /// Removes what [`open`](Self::open) made. It is called once, when all behaviours are done.
    async fn finish(&self) {}
}

/// Stores in memory.
#[derive(Clone, Copy, Debug, Default)]
pub struct InMemory;

#[async_trait]
impl Stores for InMemory {
    async fn open(&self, options: Options) -> Result<EventStore, Error> {
        Ok(options.in_memory())
    }
}

/// Stores in one PostgreSQL database, each in a schema of its own.
///
/// The schemas are named `conformance_` and a random number; they are dropped at the end. Each store
/// has about a dozen connections while its behaviour runs.
#[derive(Debug)]
pub struct Postgres {
    url: String,
    schemas: Mutex<Vec<String>>,
}

impl Postgres {
    /// Stores in the database of a connection string, as
    /// [`EventStore::connect`](crate::EventStore::connect) takes it.
    pub fn at(url: impl Into<String>) -> Self {
        Self { url: url.into(), schemas: Mutex::default() }
    }

    fn schemas(&self) -> std::sync::MutexGuard<'_, Vec<String>> {
        self.schemas.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn drop_schemas(&self, schemas: &[String]) -> Result<(), Error> {
        let Some(schema) = schemas.first() else { return Ok(()) };
        let store = EventStore::options().schema(schema).connect(&self.url).await?;
        let client = store.database()?.client().await?;
        for schema in schemas {
            let sql = format!("drop schema if exists {schema} cascade");
            if let Err(error) = client.batch_execute(&sql).await {
                tracing::warn!(%error, %schema, "a schema of the conformance suite is left behind");
            }
        }
        Ok(())
    }
}

#[async_trait]
impl Stores for Postgres {
    async fn open(&self, options: Options) -> Result<EventStore, Error> {
        let schema = format!("conformance_{:016x}", Uuid::now_v7().as_u128() as u64);
        self.schemas().push(schema.clone());
        options.schema(schema).connect(&self.url).await
    }

    async fn finish(&self) {
        let schemas = std::mem::take(&mut *self.schemas());
        if let Err(error) = self.drop_schemas(&schemas).await {
            tracing::warn!(%error, "schemas of the conformance suite are left behind");
        }
    }
}
