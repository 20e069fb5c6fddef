//! The store on PostgreSQL: connections, schema, and the backend that appends and reads.

mod appender;
#[cfg(feature = "kafka")]
mod categories;
mod checkpoint;
mod client;
mod connect;
mod dialect;
mod in_flight;
mod inline;
mod lease;
mod life;
mod listener;
mod loader;
mod migrate;
mod page;
mod read;
mod roles;
mod sql_projection;
mod tls;
mod transaction;
mod unit;
mod url;
mod verify;
mod waiting;

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use deadpool_postgres::Pool;
use tokio::sync::Semaphore;
use tokio_postgres::error::{Severity, SqlState};
use tokio_util::sync::CancellationToken;

use self::{
    appender::{Appender, GRACE},
    connect::{Busy, Connections, Target},
    dialect::Dialect,
    in_flight::HeldBack,
    loader::Loader,
};
pub use self::{
    checkpoint::Checkpoint,
    client::{Client, GenericClient, Statement, Transaction},
    dialect::{Prepared, is_out_of_date},
    in_flight::InFlight,
    lease::{Lease, LeaseOptions},
    listener::Listener,
    roles::Roles,
    sql_projection::{InlineLocks, SqlProjection},
    transaction::OwnedTransaction,
    waiting::WaitingEvents,
};
pub(crate) use self::{lease::Asked, verify::verify};
use crate::{
    append::ExpectedVersion,
    backend::{
        Backend, KnownKey, Load, NewSnapshot, Outcome, Page, Part, Request, Session, look_in_turn,
    },
    clock::Clock,
    error::Error,
    event::Recorded,
    ids::{Position, StreamId, Version},
    life::{StreamInfo, StreamState},
    metrics,
    store::Options,
};

/// How many connections there are for leases and checkpoints, whose statements are short.
const BOOKKEEPERS: usize = 2;
const BOOKKEEPING_TIMEOUT: Duration = Duration::from_secs(10);

/// How many snapshots are written at the same time.
const SNAPSHOTS: usize = 2;

/// What connections are used for. Each use has its own, so that none has to wait for another.
///
/// Appends, and the bookkeeping of leases and checkpoints, have connections of their own besides.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Use {
    /// Loading aggregates, reading events, queries, and a program's own SQL.
    #[default]
    Read,
    /// What follows the log: projections and the publisher.
    Project,
    /// Building read models anew.
    Rebuild,
    /// Units of work, and appends with inline projections: each holds one until it is committed.
    Unit,
}

/// The database behind a store: what the read side, the publisher and a program's own SQL work on.
///
/// It is cheap to clone; clones share the connections.
#[derive(Clone)]
pub struct Database(Arc<Inner>, Use);

struct Inner {
    target: Target,
    /// Past the pooler, if there is one.
    direct: Option<Target>,
    dialect: Arc<Dialect>,
    schema: Schema,
    read_models: Schema,
    pools: Pools,
    appender: Appender,
    clock: Clock,
    /// How long an append waits for a stream that another transaction holds.
    lock_timeout: Duration,
    held_back: HeldBack,
    /// How many snapshots may be written at the same time, so that loads find connections.
    saving: Semaphore,
    loader: Loader,
    statements: Statements,
    closed: CancellationToken,
}

/// Connections are made when they are first needed. Appends have more of their own.
struct Pools {
    read: Pool,
    project: Pool,
    rebuild: Pool,
    unit: Pool,
    bookkeeping: Pool,
}

impl std::fmt::Debug for Database {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Database")
            .field("target", &self.0.target.name())
            .field("schema", &self.0.schema)
            .finish_non_exhaustive()
    }
}

impl Database {
    pub(crate) async fn connect(url: &str, options: &Options) -> Result<Self, Error> {
        let target = Target::new(url, options)?;
        let direct = options.direct_url.as_ref().map(|url| Target::direct(url, options));
        let direct = direct.transpose()?;
        let (schema, read_models) = options.schemas()?;
        metrics::describe();

        let (mut client, connection) = target.connect().await?;
        let connection = tokio::spawn(connection);
        if target.is_pooled() {
            check_isolation(&client).await?;
        }
        migrate::migrate(&mut client, &schema, options.migrating).await?;
        drop(client);
        // It ends by itself once its client is gone; a failure of the closing is of no consequence.
        drop(connection);

        let dialect = Arc::new(Dialect::new(target.clone()));
        let pool = |purpose: Use| {
            let options = options.of_use(purpose);
            target.pool(options.connections, options.statement_timeout)
        };
        let pools = Pools {
            read: pool(Use::Read)?,
            project: pool(Use::Project)?,
            rebuild: pool(Use::Rebuild)?,
            unit: pool(Use::Unit)?,
            bookkeeping: target.pool(BOOKKEEPERS, Some(BOOKKEEPING_TIMEOUT))?,
        };
        let appends = target.pool(Appender::connections(options), Some(options.append_timeout))?;
        let appender = Appender::start(&target, &dialect, appends, &schema, options);
        let statements = Statements::new(&schema);
        let reading = Connections::new(&target, &dialect, &pools.read);
        let limit = options.of_use(Use::Read).statement_timeout;
        let limit = limit.map(|limit| limit.saturating_add(GRACE));
        let loader = Loader::start(reading, &schema, limit);
        let closed = CancellationToken::new();
        Ok(Self(
            Arc::new(Inner {
                target,
                direct,
                dialect,
                schema,
                read_models,
                pools,
                appender,
                loader,
                clock: options.clock.clone(),
                lock_timeout: options.lock_timeout,
                held_back: HeldBack::new(options.held_back_warning),
                saving: Semaphore::new(SNAPSHOTS),
                statements,
                closed,
            }),
            Use::default(),
        ))
    }

    /// The same database, whose [`client`](Self::client) takes connections of another use.
    #[must_use]
    pub fn using(&self, purpose: Use) -> Self {
        Self(self.0.clone(), purpose)
    }

    /// A connection for reading, projecting, or SQL of the program's own.
    ///
    /// # Errors
    /// If the database cannot be reached, all connections of the use stay taken for 30 seconds, or
    /// the store is closed.
    pub async fn client(&self) -> Result<Client, Error> {
        self.0.target.client(self.pool(), &self.0.dialect).await
    }

    fn pool(&self) -> &Pool {
        match self.1 {
            Use::Read => &self.0.pools.read,
            Use::Project => &self.0.pools.project,
            Use::Rebuild => &self.0.pools.rebuild,
            Use::Unit => &self.0.pools.unit,
        }
    }

    /// A connection for what may take long and be given up.
    async fn busy(&self) -> Result<Busy, Error> {
        self.0.target.busy(self.pool(), &self.0.dialect).await
    }

    /// A connection for a short statement about a lease or a checkpoint.
    async fn bookkeeping(&self) -> Result<Client, Error> {
        self.0.target.client(&self.0.pools.bookkeeping, &self.0.dialect).await
    }

    pub(crate) async fn in_flight(&self) -> Result<Vec<InFlight>, Error> {
        in_flight::in_flight(self).await
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
    /// Behind a pooler one cannot listen. If the store knows no direct URL either
    /// ([`Options::direct_url`]), the listener is never nudged, and who waits with it polls.
    ///
    /// # Errors
    /// If the database cannot be reached, or the store is closed.
    pub async fn listen(&self) -> Result<Listener, Error> {
        let Inner { target, direct, schema, appender, closed, .. } = &*self.0;
        if closed.is_cancelled() {
            return Err(Error::Closed);
        }
        match direct {
            None if target.is_pooled() => Ok(Listener::deaf(appender.recorded())),
            direct => {
                let target = direct.as_ref().unwrap_or(target);
                Listener::connect(target, &channel(schema), closed, appender.recorded()).await
            }
        }
    }
}

impl Inner {
    fn reading(&self) -> Connections {
        Connections::new(&self.target, &self.dialect, &self.pools.read)
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.closed.cancel();
    }
}

/// The store's functions look again after they have waited, which takes this isolation. Behind a pooler
/// the store cannot set it for its sessions.
async fn check_isolation(client: &tokio_postgres::Client) -> Result<(), Error> {
    let shown = client
        .simple_query("show default_transaction_isolation")
        .await
        .map_err(|error| database_error("read the default isolation", error))?;
    let found = shown.iter().find_map(|message| match message {
        tokio_postgres::SimpleQueryMessage::Row(row) => row.get(0),
        _ => None,
    });
    match found {
        Some("read committed") => Ok(()),
        found => Err(Error::IsolationTooStrict { found: found.unwrap_or_default().to_owned() }),
    }
}

#[async_trait]
impl Backend for Database {
    async fn append(&self, request: Request) -> Result<Outcome, Error> {
        self.0.appender.append(request).await
    }

    async fn close(&self, limit: Option<Duration>) -> usize {
        let Inner { appender, pools, .. } = &*self.0;
        let Pools { read, project, rebuild, unit, bookkeeping } = pools;
        let cut_off = appender.close(limit).await;
        for pool in [read, project, rebuild, unit, bookkeeping] {
            pool.close();
        }
        self.0.closed.cancel();
        cut_off
    }

    async fn load(&self, loads: Vec<Load>) -> Result<Vec<Part>, Error> {
        self.0.loader.load(loads).await
    }

    async fn save_snapshot(&self, snapshot: NewSnapshot) -> Result<(), Error> {
        let _permit = self.0.saving.acquire().await.map_err(|_| Error::Closed)?;
        loader::save_snapshot(&self.0.reading(), &self.0.statements.save_snapshot, snapshot).await
    }

    async fn begin(&self) -> Result<Box<dyn Session>, Error> {
        Ok(Box::new(unit::Unit::begin(self).await?))
    }

    async fn page(&self, page: Page<'_>) -> Result<Vec<Recorded>, Error> {
        page::page(self, page).await
    }

    async fn look(&self, page: Page<'_>) -> Result<(Position, Vec<Recorded>), Error> {
        // What is above would be read and thrown away each time.
        if self.0.held_back.lasts() {
            return look_in_turn(self, page).await;
        }
        page::look(self, page).await
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
        in_flight::safe_position(self).await
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
    pub(crate) fn new(name: &str) -> Result<Self, Error> {
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

    /// A schema beside this one, for what is not to be among the tables here: its name is this one's, an
    /// underscore, and `what`.
    ///
    /// # Errors
    /// [`Error::InvalidSchema`] if `what` does not fit into a name.
    pub fn beside(&self, what: &str) -> Result<Self, Error> {
        Self::new(what).map(|what| Self(format!("{}_{}", self.0, what.0)))
    }

    /// Puts the quoted name into SQL wherever `{schema}` stands.
    pub fn sql(&self, template: &str) -> String {
        template.replace("{schema}", &format!("\"{}\"", self.0))
    }
}

/// The statements of the hot paths, with the schema's name in them.
struct Statements {
    append: String,
    load: String,
    enter_inline: String,
    outcomes: String,
    safe_position: String,
    position_at: String,
    last_position: String,
    save_snapshot: String,
}

impl Statements {
    fn new(schema: &Schema) -> Self {
        Self {
            append: schema.sql(include_str!("sql/append.sql")),
            load: schema.sql(include_str!("sql/load.sql")),
            enter_inline: schema.sql("select {schema}.enter_inline($1, $2, $3, $4)"),
            outcomes: schema.sql(include_str!("sql/outcomes.sql")),
            safe_position: schema.sql("select {schema}.safe_position(), {schema}.last_position()"),
            position_at: schema
                .sql("select asked_when, at_position from {schema}.try_position_at($1, $2, $3)"),
            last_position: schema.sql("select {schema}.last_position()"),
            save_snapshot: schema.sql(include_str!("sql/save_snapshot.sql")),
        }
    }
}

/// The channel on which appends are announced.
fn channel(schema: &Schema) -> String {
    format!("annals_{}", schema.name())
}

/// Whether a failed statement surely had no effect and may be tried again as it is.
pub(crate) fn is_transient(state: &SqlState) -> bool {
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
        // Behind a pooler, another program has left a statement of this name on the session.
        SqlState::DUPLICATE_PSTATEMENT,
    ]
    .contains(state)
}

/// True if the connection is gone, or the backend said that it is going, or a pooler that it is gone.
fn is_lost(error: &tokio_postgres::Error) -> bool {
    let Some(error) = error.as_db_error() else { return true };
    // Poolers do not say how severe it is in the form that does not depend on the language; what they
    // say of the connection has a class of its own.
    matches!(error.parsed_severity(), Some(Severity::Fatal | Severity::Panic))
        || error.parsed_severity().is_none() && matches!(error.severity(), "FATAL" | "PANIC")
        || is_of_connection(error.code())
}

/// Connection exceptions.
fn is_of_connection(state: &SqlState) -> bool {
    state.code().starts_with("08")
}

/// The error of a statement that is not an append.
pub(crate) fn database_error(action: &'static str, error: tokio_postgres::Error) -> Error {
    let retryable = match error.code() {
        Some(state) => is_transient(state) || is_lost(&error),
        // Without a word from the server: what came cannot be read, or nothing came.
        None => is_broken(&error),
    };
    Error::Database { action, source: Box::new(error), retryable }
}

/// True if the connection broke, rather than that values do not fit the statement or its rows.
fn is_broken(error: &tokio_postgres::Error) -> bool {
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        if error.is::<std::io::Error>() {
            return true;
        }
        cause = error.source();
    }
    error.is_closed()
}
