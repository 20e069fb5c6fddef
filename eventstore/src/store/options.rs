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
    pub(crate) writers: usize,
    pub(crate) readers: usize,
    pub(crate) connect_timeout: Duration,
    pub(crate) idempotency_retention: Option<Duration>,
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
            writers: 2,
            readers: 8,
            connect_timeout: Duration::from_secs(5),
            idempotency_retention: None,
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

    /// How long an idempotency key is remembered: for ever unless set.
    ///
    /// An open store then removes older keys by itself, in small steps, some time after they are due: at
    /// most a tenth of this time later, or an hour. A command or an append that is repeated under a key
    /// that was removed is a new one. So take a time that is longer than any repetition comes late;
    /// days, not minutes. Several processes may be told so; at each moment one removes.
    pub fn idempotency_retention(mut self, retention: Duration) -> Self {
        self.idempotency_retention = Some(retention);
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
