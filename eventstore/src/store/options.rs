//! How a store is opened.

use std::time::Duration;

use super::EventStore;
use crate::{
    clock::Clock,
    error::Error,
    postgres::{Schema, Use},
};

/// Options of a store. Get them from [`EventStore::options`].
///
/// ```no_run
/// # async fn run() -> Result<(), annals_eventstore::Error> {
/// # use annals_eventstore::EventStore;
/// let store = EventStore::options().schema("orders").connect("postgres://localhost/app").await?;
/// # Ok(()) }
/// ```
#[derive(Clone)]
#[must_use = "options do nothing until connect or in_memory"]
pub struct Options {
    pub(crate) schema: String,
    pub(crate) read_models: String,
    pub(crate) clock: Clock,
    pub(crate) max_event_bytes: usize,
    pub(crate) max_append_events: usize,
    pub(crate) max_append_bytes: usize,
    pub(crate) max_attempts: usize,
    pub(crate) retry_share: f32,
    pub(crate) retries_per_second: u32,
    pub(crate) cache_bytes: u64,
    pub(crate) writers: usize,
    pub(crate) read: OfUse,
    pub(crate) project: OfUse,
    pub(crate) rebuild: OfUse,
    pub(crate) unit: OfUse,
    pub(crate) connect_timeout: Duration,
    pub(crate) append_timeout: Duration,
    pub(crate) lock_timeout: Duration,
    pub(crate) held_back_warning: Duration,
    pub(crate) queue_appends: usize,
    pub(crate) queue_bytes: usize,
    pub(crate) queue_timeout: Duration,
    pub(crate) pooled: bool,
    pub(crate) direct_url: Option<String>,
    pub(crate) idempotency_retention: Option<Duration>,
    pub(crate) migrating: Migrating,
}

/// What becomes of a schema that is not there or not up to date.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Migrating {
    /// It is brought up to date.
    Allowed,
    /// Connecting fails.
    Refused,
}

/// What the connections of one use may be.
#[derive(Clone, Copy, Debug)]
pub(crate) struct OfUse {
    pub(crate) connections: usize,
    pub(crate) statement_timeout: Option<Duration>,
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
            max_append_bytes: 256 * 1024 * 1024,
            max_attempts: 20,
            retry_share: 0.1,
            retries_per_second: 10,
            cache_bytes: 64 * 1024 * 1024,
            writers: 2,
            read: OfUse { connections: 8, statement_timeout: Some(5 * MINUTE) },
            project: OfUse { connections: 8, statement_timeout: Some(5 * MINUTE) },
            rebuild: OfUse { connections: 4, statement_timeout: None },
            unit: OfUse { connections: 8, statement_timeout: Some(5 * MINUTE) },
            connect_timeout: Duration::from_secs(5),
            append_timeout: Duration::from_secs(30),
            lock_timeout: Duration::from_secs(5),
            held_back_warning: Duration::from_secs(10),
            queue_appends: 4096,
            queue_bytes: 256 * 1024 * 1024,
            queue_timeout: Duration::from_secs(5),
            pooled: false,
            direct_url: None,
            idempotency_retention: None,
            migrating: Migrating::Allowed,
        }
    }
}

const YEAR: Duration = Duration::from_secs(365 * 24 * 3600);
const MINUTE: Duration = Duration::from_secs(60);

impl std::fmt::Debug for Options {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // The direct URL may hold a password.
        f.debug_struct("Options")
            .field("schema", &self.schema)
            .field("read_models", &self.read_models)
            .field("clock", &self.clock)
            .finish_non_exhaustive()
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

    /// The schemas that are set: of the store's tables, and of the read models'.
    ///
    /// # Errors
    /// [`Error::InvalidSchema`] if one is no name of a schema.
    pub fn schemas(&self) -> Result<(Schema, Schema), Error> {
        Ok((Schema::new(&self.schema)?, Schema::new(&self.read_models)?))
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

    /// The most bytes of all events in one append, or in one unit of work: 256 MiB unless set. More than
    /// 512 MiB counts as 512 MiB: PostgreSQL takes no message of a gigabyte, and there is more in one
    /// than payloads.
    pub fn max_append_bytes(mut self, bytes: usize) -> Self {
        self.max_append_bytes = bytes.min(512 * 1024 * 1024);
        self
    }

    /// How often a command is decided before a version conflict, or another failure that may pass, is reported:
    /// 20 times unless set. Failures other than conflicts have a [budget](Self::retry_budget) besides.
    pub fn max_attempts(mut self, attempts: usize) -> Self {
        self.max_attempts = attempts.max(1);
        self
    }

    /// How many commands are tried again after a failure of the database that may pass, a lost connection say: this share of
    /// the commands of the last ten seconds (0 to 1000), and so many a second besides. A tenth, and 10, unless set.
    ///
    /// The store and its clones share the budget, so that a database that is down is asked little more often than there
    /// are commands. Whoever calls has the failure then, and can send the command again under its key. Conflicts and keys in
    /// flight are answers of a database that is well, and cost nothing of it. With zero for both, only these are tried again.
    pub fn retry_budget(mut self, share: f32, per_second: u32) -> Self {
        // Not a number is no share.
        self.retry_share = if share.is_nan() { 0.0 } else { share.clamp(0.0, 1000.0) };
        self.retries_per_second = per_second.min(1_000_000);
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

    /// How many connections append at the same time: 2 unless set. Each takes along all the appends
    /// that wait when it is free.
    pub fn writers(mut self, connections: usize) -> Self {
        self.writers = connections.max(1);
        self
    }

    /// How many connections there are at most for a use: 8 for [`Use::Read`], [`Use::Project`] and
    /// [`Use::Unit`], 4 for [`Use::Rebuild`] unless set. They are made when needed. A read model that
    /// is being projected takes one for writing and one for reading the log.
    pub fn connections(mut self, purpose: Use, connections: usize) -> Self {
        self.of_use_mut(purpose).connections = connections.max(1);
        self
    }

    /// How long a statement may take on the connections of a use: 5 minutes for [`Use::Read`],
    /// [`Use::Project`] and [`Use::Unit`], without limit for [`Use::Rebuild`] unless set; `None` for no limit. The time
    /// that the program takes to read the rows counts. The server ends what takes longer with a
    /// retryable [`Error::Database`].
    ///
    /// Behind a pooler ([`transaction_pooler`](Self::transaction_pooler)) this has no effect: set
    /// `statement_timeout` for the role.
    pub fn statement_timeout(mut self, purpose: Use, timeout: impl Into<Option<Duration>>) -> Self {
        self.of_use_mut(purpose).statement_timeout = timeout.into();
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

    /// How long an append may take, with all its waiting: 30 seconds unless set. Then it fails with
    /// [`Error::TimedOut`] if it has not been sent, and is surely not recorded, or with
    /// [`Error::Indeterminate`] if it has. More than a year counts as a year.
    pub fn append_timeout(mut self, timeout: Duration) -> Self {
        self.append_timeout = timeout.min(YEAR);
        self
    }

    /// How long an append waits for a stream that another transaction holds: 5 seconds unless set.
    /// Then it fails with [`Error::Locked`]. Appends to other streams do not wait for it.
    pub fn lock_timeout(mut self, timeout: Duration) -> Self {
        self.lock_timeout = timeout;
        self
    }

    /// After how long a store warns (by `tracing`) that an append in flight holds back the readers of
    /// the log: 10 seconds unless set. The warning names the append's server process, and comes again
    /// after as long. It takes a reader, such as a worker or a cursor, to find out. See
    /// [`EventStore::in_flight`].
    pub fn held_back_warning(mut self, after: Duration) -> Self {
        self.held_back_warning = after;
        self
    }

    /// How many appends this process accepts at the same time: 4096 unless set. Others wait for a
    /// place, see [`queue_timeout`](Self::queue_timeout).
    pub fn queue_appends(mut self, appends: usize) -> Self {
        self.queue_appends = appends.max(1);
        self
    }

    /// How many bytes of events the appends accepted at the same time have at most: 256 MiB unless
    /// set. One that is larger is accepted when there is no other.
    pub fn queue_bytes(mut self, bytes: usize) -> Self {
        self.queue_bytes = bytes;
        self
    }

    /// How long an append waits for a place in the queue: 5 seconds unless set. Then it fails with
    /// [`Error::Overloaded`] and is not recorded. With zero it does not wait.
    pub fn queue_timeout(mut self, timeout: Duration) -> Self {
        self.queue_timeout = timeout;
        self
    }

    /// Says that the URL leads to a pooler in transaction mode, such as PgBouncer with
    /// `pool_mode = transaction`.
    ///
    /// Then the store relies on nothing that a session keeps: no statement has a name, and nothing is
    /// set for a session. What it sets elsewhere must be set for the role: a default isolation of
    /// READ COMMITTED (which is PostgreSQL's own; connecting fails otherwise) and a statement timeout.
    /// Nobody can be notified through such a pooler, so readers poll, unless there is a
    /// [`direct_url`](Self::direct_url).
    pub fn transaction_pooler(mut self) -> Self {
        self.pooled = true;
        self
    }

    /// The URL of the database past the pooler, for those who listen for new events: one connection
    /// for each projection worker and publisher.
    pub fn direct_url(mut self, url: impl Into<String>) -> Self {
        self.direct_url = Some(url.into());
        self
    }

    /// Connects only to a store that is there and up to date: nothing is created and nothing migrated.
    /// For programs that look at a store, and those whose role may not change the schema.
    pub fn without_migrating(mut self) -> Self {
        self.migrating = Migrating::Refused;
        self
    }

    pub(crate) fn of_use(&self, purpose: Use) -> OfUse {
        match purpose {
            Use::Read => self.read,
            Use::Project => self.project,
            Use::Rebuild => self.rebuild,
            Use::Unit => self.unit,
        }
    }

    fn of_use_mut(&mut self, purpose: Use) -> &mut OfUse {
        match purpose {
            Use::Read => &mut self.read,
            Use::Project => &mut self.project,
            Use::Rebuild => &mut self.rebuild,
            Use::Unit => &mut self.unit,
        }
    }

    /// Connects to PostgreSQL and brings the schema up to date.
    ///
    /// # Errors
    /// [`Error::InvalidUrl`], [`Error::InvalidSchema`], [`Error::Connect`],
    /// [`Error::SettingsRefused`], [`Error::IsolationTooStrict`], [`Error::SchemaTooNew`],
    /// [`Error::MigrationChanged`], or a failed migration;
    /// [`without_migrating`](Self::without_migrating), [`Error::SchemaMissing`] or
    /// [`Error::SchemaOutdated`].
    pub async fn connect(self, url: &str) -> Result<EventStore, Error> {
        EventStore::open(url, self).await
    }

    /// Opens a store in memory, with the same behaviour, for unit tests.
    pub fn in_memory(self) -> EventStore {
        EventStore::open_in_memory(self)
    }
}
