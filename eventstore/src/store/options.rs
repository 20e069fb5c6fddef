//! How a store is opened.

use std::time::Duration;

use super::EventStore;
use crate::{clock::Clock, error::Error};

/// Options of a store. Get them from [`EventStore::options`].
///
/// ```no_run
/// # async fn run() -> Result<(), annals_eventstore::Error> {
/// # use annals_eventstore::EventStore;
/// let store = EventStore::options().schema("orders").connect("postgres://localhost/app").await?;
/// # Ok(()) }
/// ```
#[derive(Clone, Debug)]
#[must_use = "options do nothing until connect or in_memory"]
pub struct Options {
    pub(crate) schema: String,
    pub(crate) read_models: String,
    pub(crate) clock: Clock,
    pub(crate) max_event_bytes: usize,
    pub(crate) max_append_events: usize,
    pub(crate) max_attempts: usize,
    pub(crate) cache_bytes: u64,
    pub(crate) writers: usize,
    pub(crate) readers: usize,
    pub(crate) connect_timeout: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            schema: "annals".to_owned(),
            read_models: "public".to_owned(),
            clock: Clock::Database,
            // Below Kafka's default limit of 1 MB for a record with its headers.
            max_event_bytes: 768 * 1024,
            max_append_events: 100_000,
            max_attempts: 20,
            cache_bytes: 64 * 1024 * 1024,
            writers: 2,
            readers: 8,
            connect_timeout: Duration::from_secs(5),
        }
    }
}

impl Options {
    /// The schema of the store's tables: `annals` unless set. Several stores can share a database.
    pub fn schema(mut self, schema: impl Into<String>) -> Self {
        self.schema = schema.into();
        self
    }

    /// The schema of the read models' tables: `public` unless set. It must exist.
    pub fn read_models_schema(mut self, schema: impl Into<String>) -> Self {
        self.read_models = schema.into();
        self
    }

    /// The clock that stamps events: the database's unless set.
    pub fn clock(mut self, clock: Clock) -> Self {
        self.clock = clock;
        self
    }

    /// The largest event, payload and metadata together, in bytes: 768 KiB unless set.
    pub fn max_event_bytes(mut self, bytes: usize) -> Self {
        self.max_event_bytes = bytes;
        self
    }

    /// The most events in one append: 100,000 unless set.
    pub fn max_append_events(mut self, events: usize) -> Self {
        self.max_append_events = events;
        self
    }

    /// How often a command is decided before a version conflict is reported: 20 times unless set.
    pub fn max_attempts(mut self, attempts: usize) -> Self {
        self.max_attempts = attempts.max(1);
        self
    }

    /// How much room the aggregate cache takes, in bytes, for all aggregates of the store together:
    /// 64 MiB unless set. 0 turns it off.
    ///
    /// A command on a cached aggregate needs no load. Other processes may append to the same streams:
    /// an append is conditional on the cached version, and after a conflict only the newer events are
    /// fetched.
    pub fn cache_bytes(mut self, bytes: u64) -> Self {
        self.cache_bytes = bytes;
        self
    }

    /// How many connections append at the same time: 2 unless set. One carries thousands of appends.
    pub fn writers(mut self, connections: usize) -> Self {
        self.writers = connections.max(1);
        self
    }

    /// How many connections there are for all else: 8 unless set.
    pub fn readers(mut self, connections: usize) -> Self {
        self.readers = connections.max(1);
        self
    }

    /// How long to try to reach the database: 5 seconds unless set.
    pub fn connect_timeout(mut self, timeout: Duration) -> Self {
        self.connect_timeout = timeout;
        self
    }

    /// Connects to PostgreSQL and brings the schema up to date.
    ///
    /// # Errors
    /// [`Error::InvalidUrl`], [`Error::InvalidSchema`], [`Error::Connect`],
    /// [`Error::SchemaTooNew`], [`Error::MigrationChanged`], or a failed migration.
    pub async fn connect(self, url: &str) -> Result<EventStore, Error> {
        EventStore::open(url, self).await
    }

    /// Opens a store in memory, with the same behaviour, for unit tests.
    pub fn in_memory(self) -> EventStore {
        EventStore::open_in_memory(self)
    }
}
