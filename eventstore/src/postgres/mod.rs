//! The store on PostgreSQL: connections, schema, and the backend that appends and reads.

mod appender;
mod checkpoint;
mod lease;
mod life;
mod listener;
mod migrate;
mod read;

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use deadpool_postgres::{
    Manager, ManagerConfig, Pool, PoolError, RecyclingMethod, Runtime, Timeouts,
};
use futures::stream::BoxStream;
use tokio_postgres::{
    NoTls,
    config::Host,
    error::{Severity, SqlState},
};

use self::appender::Appender;
pub use self::{
    checkpoint::Checkpoint,
    lease::{Lease, LeaseOptions},
    listener::Listener,
};
use crate::{
    append::ExpectedVersion,
    backend::{Backend, KnownKey, Outcome, Page, Range, Request},
    error::Error,
    event::Recorded,
    ids::{Position, StreamId, Version},
    life::{StreamInfo, StreamState},
    query::Archived,
    store::Options,
};

/// A connection from the store's pool.
pub type Client = deadpool_postgres::Client;

/// A transaction on such a connection.
pub type Transaction<'a> = deadpool_postgres::Transaction<'a>;

/// The database behind a store: what the read side, the publisher and a program's own SQL work on.
///
/// It is cheap to clone; clones share the connections.
#[derive(Clone)]
pub struct Database(Arc<Inner>);

struct Inner {
    config: tokio_postgres::Config,
    schema: Schema,
    read_models: Schema,
    /// For reading, projecting and the program's own statements. Appends have their own.
    pool: Pool,
    appender: Appender,
    statements: Statements,
}

impl std::fmt::Debug for Database {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Database")
            .field("target", &target(&self.0.config))
            .field("schema", &self.0.schema)
            .finish_non_exhaustive()
    }
}

impl Database {
    pub(crate) async fn connect(url: &str, options: &Options) -> Result<Self, Error> {
        let mut config: tokio_postgres::Config = url.parse().map_err(|_| Error::InvalidUrl {
            // The parser's own message repeats parts of the URL, which may hold a password.
            reason:
                "expected postgres://USER:PASSWORD@HOST:PORT/DATABASE, or key=value pairs that \
                     libpq knows"
                    .to_owned(),
        })?;
        if config.get_application_name().is_none() {
            config.application_name("annals");
        }
        // The store's functions look again after they have waited, whatever the database's default.
        let isolation = "-c default_transaction_isolation=read\\ committed";
        let given = config.get_options().unwrap_or_default().to_owned();
        config.options(format!("{given} {isolation}").trim());
        if config.get_connect_timeout().is_none() {
            config.connect_timeout(options.connect_timeout);
        }
        let schema = Schema::new(&options.schema)?;
        let read_models = Schema::new(&options.read_models)?;

        let connecting = tokio::time::timeout(options.connect_timeout, config.connect(NoTls));
        let (mut client, connection) = match connecting.await {
            Ok(connected) => connected.map_err(|error| connect_error(&config, error))?,
            Err(elapsed) => return Err(connect_error(&config, elapsed)),
        };
        let connection = tokio::spawn(connection);
        migrate::migrate(&mut client, &schema).await?;
        drop(client);
        // It ends by itself once its client is gone; a failure of the closing is of no consequence.
        drop(connection);

        let pool = |size| pool(&config, size, options.connect_timeout);
        let appender = Appender::start(pool(options.writers + 1)?, &schema, options);
        let statements = Statements::new(&schema);
        let pool = pool(options.readers)?;
        Ok(Self(Arc::new(Inner { config, schema, read_models, pool, appender, statements })))
    }

    /// A connection for reading, projecting, or SQL of the program's own.
    ///
    /// # Errors
    /// If the database cannot be reached, or all connections stay taken for 30 seconds.
    pub async fn client(&self) -> Result<Client, Error> {
        client(&self.0.pool, &self.0.config).await
    }

    /// The schema of the store's own tables.
    pub fn schema(&self) -> &Schema {
        &self.0.schema
    }

    /// The schema of the read models' tables.
    pub fn read_models(&self) -> &Schema {
        &self.0.read_models
    }

    /// Listens for the nudge that follows appends.
    ///
    /// # Errors
    /// If the database cannot be reached.
    pub async fn listen(&self) -> Result<Listener, Error> {
        Listener::connect(&self.0.config, &channel(&self.0.schema)).await
    }
}

#[async_trait]
impl Backend for Database {
    async fn append(&self, request: Request) -> Result<Outcome, Error> {
        self.0.appender.append(request).await
    }

    fn streams<'a>(
        &'a self,
        streams: &'a [StreamId],
        range: Range,
    ) -> BoxStream<'a, Result<(usize, Recorded), Error>> {
        read::streams(self, streams, range)
    }

    async fn page(&self, page: Page<'_>) -> Result<Vec<Recorded>, Error> {
        read::page(self, page).await
    }

    async fn stream_info(&self, stream: &StreamId) -> Result<Option<StreamInfo>, Error> {
        life::stream_info(self, stream).await
    }

    async fn change_state(
        &self,
        stream: &StreamId,
        expected: ExpectedVersion,
        state: StreamState,
    ) -> Result<Version, Error> {
        life::change_state(self, stream, expected, state).await
    }

    async fn remove_keys(&self, older_than: Duration) -> Result<u64, Error> {
        life::remove_keys(self, older_than).await
    }

    async fn known_keys(&self, keys: &[String]) -> Result<Vec<KnownKey>, Error> {
        read::known_keys(self, keys).await
    }

    async fn safe_position(&self) -> Result<Position, Error> {
        read::position(self, &self.0.statements.safe_position).await
    }

    async fn last_position(&self) -> Result<Position, Error> {
        read::position(self, &self.0.statements.last_position).await
    }

    async fn position_at(
        &self,
        time: DateTime<Utc>,
        clock: Option<DateTime<Utc>>,
    ) -> Result<Position, Error> {
        read::position_at(self, time, clock).await
    }
}

/// The name of a schema, checked once; what it is put into cannot be anything but an identifier.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Schema(String);

impl Schema {
    fn new(name: &str) -> Result<Self, Error> {
        let valid = name.len() <= 40
            && name.starts_with(|c: char| c.is_ascii_lowercase() || c == '_')
            && name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_');
        if valid {
            Ok(Self(name.to_owned()))
        } else {
            Err(Error::InvalidSchema { schema: name.to_owned() })
        }
    }

    /// The name.
    pub fn name(&self) -> &str {
        &self.0
    }

    /// Puts the quoted name into SQL wherever `{schema}` stands.
    pub fn sql(&self, template: &str) -> String {
        template.replace("{schema}", &format!("\"{}\"", self.0))
    }
}

/// The statements of the hot paths, with the schema's name in them.
struct Statements {
    streams: String,
    streams_with_archived: String,
    outcomes: String,
    safe_position: String,
    position_at: String,
    last_position: String,
}

impl Statements {
    fn new(schema: &Schema) -> Self {
        Self {
            streams: read::streams_sql(schema, Archived::Excluded),
            streams_with_archived: read::streams_sql(schema, Archived::Included),
            outcomes: schema.sql(include_str!("sql/outcomes.sql")),
            safe_position: schema.sql("select {schema}.safe_position()"),
            position_at: schema
                .sql("select asked_when, at_position from {schema}.try_position_at($1, $2, $3)"),
            last_position: schema.sql("select {schema}.last_position()"),
        }
    }
}

/// The channel on which appends are announced.
fn channel(schema: &Schema) -> String {
    format!("annals_{}", schema.name())
}

fn pool(
    config: &tokio_postgres::Config,
    size: usize,
    connect_timeout: Duration,
) -> Result<Pool, Error> {
    let manager = Manager::from_config(
        config.clone(),
        NoTls,
        ManagerConfig { recycling_method: RecyclingMethod::Fast },
    );
    Pool::builder(manager)
        .max_size(size)
        .timeouts(Timeouts {
            wait: Some(Duration::from_secs(30)),
            create: Some(connect_timeout),
            recycle: Some(connect_timeout),
        })
        .runtime(Runtime::Tokio1)
        .build()
        .map_err(|error| connect_error(config, error))
}

async fn client(pool: &Pool, config: &tokio_postgres::Config) -> Result<Client, Error> {
    pool.get().await.map_err(|error| match error {
        PoolError::Backend(error) => connect_error(config, error),
        PoolError::Timeout(deadpool_postgres::TimeoutType::Wait) => Error::Database {
            action: "get a connection: all of the pool's stay taken",
            source: Box::new(error),
            retryable: true,
        },
        error => connect_error(config, error),
    })
}

fn connect_error(
    config: &tokio_postgres::Config,
    error: impl std::error::Error + Send + Sync + 'static,
) -> Error {
    Error::Connect { target: target(config), source: Box::new(error) }
}

/// Where a configuration points to, without user and password.
fn target(config: &tokio_postgres::Config) -> String {
    let port = |index: usize| match config.get_ports() {
        [] => 5432,
        [port] => *port,
        ports => ports.get(index).copied().unwrap_or(5432),
    };
    let hosts: Vec<_> = config
        .get_hosts()
        .iter()
        .enumerate()
        .map(|(index, host)| match host {
            Host::Tcp(host) => format!("{host}:{}", port(index)),
            Host::Unix(path) => format!("{}:{}", path.display(), port(index)),
        })
        .collect();
    format!("{}/{}", hosts.join(","), config.get_dbname().unwrap_or_default())
}

/// Whether a failed statement surely had no effect and may be tried again as it is.
fn is_transient(state: &SqlState) -> bool {
    [
        SqlState::T_R_SERIALIZATION_FAILURE,
        SqlState::T_R_DEADLOCK_DETECTED,
        SqlState::LOCK_NOT_AVAILABLE,
        SqlState::QUERY_CANCELED,
        SqlState::TOO_MANY_CONNECTIONS,
        SqlState::CANNOT_CONNECT_NOW,
        SqlState::ADMIN_SHUTDOWN,
        SqlState::CRASH_SHUTDOWN,
        SqlState::DISK_FULL,
    ]
    .contains(state)
}

/// True if the connection is gone, or the backend said that it is going.
fn is_lost(error: &tokio_postgres::Error) -> bool {
    match error.as_db_error() {
        Some(error) => {
            matches!(error.parsed_severity(), Some(Severity::Fatal | Severity::Panic))
        }
        None => true,
    }
}

/// The error of a statement that is not an append.
pub(crate) fn database_error(action: &'static str, error: tokio_postgres::Error) -> Error {
    let retryable = error
        .code()
        .map_or_else(|| error.is_closed() || error.as_db_error().is_none(), is_transient);
    Error::Database { action, source: Box::new(error), retryable }
}
