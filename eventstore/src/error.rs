//! Everything that can go wrong in the store, and whether trying again helps.

use std::time::Duration;

use chrono::{DateTime, Utc};

use crate::{
    append::ExpectedVersion,
    ids::{Position, StreamId, Version},
};

/// Why a stored event cannot be read as the asked-for type.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DecodeError {
    /// Nothing has this stored name: no variant, no alias, no dropped or split type.
    #[error(
        "no variant has this type name; add one, or an alias to the variant it became, or declare it dropped or split"
    )]
    UnknownType,
    /// A newer version of the code wrote it.
    #[error("this code knows the type up to version {supported}; deploy the newer code here")]
    NewerVersion {
        /// The newest version that this code reads.
        supported: u32,
    },
    /// The payload does not fit the variant.
    #[error("the payload does not fit the variant's fields")]
    Payload(#[source] serde_json::Error),
}

/// A failure of the store: of its infrastructure, or of what it was asked to do.
///
/// A domain's own refusals are not here; they are [`ExecuteError::Rejected`].
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The stream is not at the version that the append expected.
    #[error("stream {stream} is at version {actual}, the append expected {expected}")]
    Conflict {
        /// The stream.
        stream: StreamId,
        /// What the append expected.
        expected: ExpectedVersion,
        /// The version that the stream has.
        actual: Version,
    },
    /// The stream is deleted: it is read as if it did not exist, and takes no events.
    #[error("stream {stream} is deleted; restore it first, or use another")]
    StreamDeleted {
        /// The stream.
        stream: StreamId,
    },
    /// The stream is archived: it is read only on request, and takes no events.
    #[error("stream {stream} is archived; restore it first, or read it with its archived events")]
    StreamArchived {
        /// The stream.
        stream: StreamId,
    },
    /// Events belong to a stream that is not in the database. Nothing that the store does leads to that.
    #[error(
        "there are events of the stream with id {id}, and it is not there: the database was changed past \
         the store, or restored in part; restore the table of streams from a backup"
    )]
    StreamMissing {
        /// The stream's number in the table of streams.
        id: i64,
    },
    /// A reader of the log has not come to the end of a stream that was to be archived or restored; it
    /// would miss events.
    #[error(
        "stream {stream} stays where it is: the reader {reader:?} has come to position {at}, not to \
         {needed} yet; let it catch up, or remove its checkpoint if it is no longer in use"
    )]
    ReaderBehind {
        /// The stream.
        stream: StreamId,
        /// The name of the reader's checkpoint.
        reader: String,
        /// The position that it has come to.
        at: Position,
        /// The position of the stream's last event.
        needed: Position,
    },
    /// The idempotency key was used before, for another command.
    #[error("idempotency key {key:?} was used before, for a different command; use a new key")]
    KeyReused {
        /// The key.
        key: String,
    },
    /// Another append under the same idempotency key was just being recorded.
    #[error("another append under the same idempotency key is in flight; try again")]
    KeyInFlight,
    /// The name of a stream is not allowed.
    #[error("stream name {stream:?} is not valid: {reason}")]
    InvalidStream {
        /// The name as given.
        stream: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The name of a schema is not allowed.
    #[error(
        "schema name {schema:?} is not valid: use lower-case letters, digits and _, at most 40, \
         starting with a letter or _"
    )]
    InvalidSchema {
        /// The name as given.
        schema: String,
    },
    /// The name of a role is not allowed.
    #[error(
        "role name {role:?} is not valid: use letters, digits and _ - . @, from 1 to 63 characters"
    )]
    InvalidRole {
        /// The name as given.
        role: String,
    },
    /// The append cannot be stored as it is.
    #[error("append refused: {reason}")]
    InvalidAppend {
        /// What is wrong with it.
        reason: String,
    },
    /// The supplied recording time is before the last recorded event's.
    #[error("recording time {given} is before {last}, the last one recorded; time never goes back")]
    ClockWentBack {
        /// The time that the append brought.
        given: DateTime<Utc>,
        /// The last recorded time.
        last: DateTime<Utc>,
    },
    /// An as-of time that has not come yet: the answer could still change.
    #[error("cannot answer as of {at}: it is in the future, the store's clock says {now}")]
    Future {
        /// The time asked for.
        at: DateTime<Utc>,
        /// The store's time.
        now: DateTime<Utc>,
    },
    /// An as-of position beyond the end of the log.
    #[error("cannot answer as of position {at}: the log ends at {end}")]
    BeyondEnd {
        /// The position asked for.
        at: Position,
        /// The last position that is safe to read.
        end: Position,
    },
    /// A stored event cannot be decoded.
    #[error(
        "cannot decode event {version} of stream {stream}, type {event_type:?} version {schema_version}"
    )]
    Decode {
        /// The stream.
        stream: StreamId,
        /// The event's version in the stream.
        version: Version,
        /// Its stored type name.
        event_type: String,
        /// Its stored schema version.
        schema_version: u32,
        /// Why not.
        source: DecodeError,
    },
    /// An event, a command or metadata cannot be written as JSON.
    #[error("cannot encode {what} as JSON")]
    Encode {
        /// What was to be encoded.
        what: String,
        /// Why not.
        source: serde_json::Error,
    },
    /// The connection string is not valid.
    #[error("the database URL is not valid: {reason}")]
    InvalidUrl {
        /// What is wrong with it.
        reason: String,
    },
    /// No connection to the database.
    #[error("cannot connect to PostgreSQL at {target}")]
    Connect {
        /// Host, port and database.
        target: String,
        /// Why not.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The database holds a newer schema than this code knows.
    #[error(
        "the schema {schema:?} is at migration {found}, this program knows up to {supported}; \
         run a newer version of the program"
    )]
    SchemaTooNew {
        /// The schema.
        schema: String,
        /// The migration found.
        found: i32,
        /// The last one this code knows.
        supported: i32,
    },
    /// There is no store, and none was to be created.
    #[error(
        "there is no store in the schema {schema:?} of this database; check the URL and the schema, or \
         let the program that writes to it create it"
    )]
    SchemaMissing {
        /// The schema.
        schema: String,
    },
    /// The schema is older than this code needs, and was not to be migrated.
    #[error(
        "the schema {schema:?} is at migration {found}, this program needs {needed}; let the program \
         that owns the schema migrate it, or run an older version of this one"
    )]
    SchemaOutdated {
        /// The schema.
        schema: String,
        /// The last migration that is applied.
        found: i32,
        /// The one that this code needs.
        needed: i32,
    },
    /// An applied migration differs from the one in this code.
    #[error("migration {number} of schema {schema:?} was changed after it had been applied")]
    MigrationChanged {
        /// The schema.
        schema: String,
        /// The migration's number.
        number: i32,
    },
    /// The server refuses the settings that the store brings for its sessions, as poolers do.
    #[error(
        "{target} refuses the settings of a session: if it is a pooler in transaction mode, open \
         the store with Options::transaction_pooler()"
    )]
    SettingsRefused {
        /// Host, port and database.
        target: String,
        /// What the server said.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// Behind a pooler, transactions have another isolation than the store needs.
    #[error(
        "transactions of this role are {found:?} by default, and the store needs 'read committed': \
         alter role ... set default_transaction_isolation = 'read committed'"
    )]
    IsolationTooStrict {
        /// The isolation that was found.
        found: String,
    },
    /// The time for the operation is over. It had not begun: nothing was recorded.
    #[error("no time left to {action} after {waited:?}; nothing was recorded")]
    TimedOut {
        /// What was to be done.
        action: &'static str,
        /// How long it had.
        waited: Duration,
    },
    /// Too many appends wait already. This one was not accepted: nothing was recorded.
    #[error(
        "too many appends wait ({appends}, {bytes} bytes) and none got done in {waited:?}; nothing \
         was recorded"
    )]
    Overloaded {
        /// How many appends were accepted and not done.
        appends: usize,
        /// How many bytes they have together, about.
        bytes: usize,
        /// How long this one waited for a place.
        waited: Duration,
    },
    /// Another transaction holds a stream. Nothing was recorded.
    #[error("another transaction holds {}; nothing was recorded in {waited:?}", held(streams))]
    Locked {
        /// The streams of the append; at least one of them, or the clock of the store, is held.
        streams: Vec<StreamId>,
        /// How long the append waited for it, at its last try.
        waited: Duration,
        /// What the database said.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The outcome of an append is unknown: the connection was lost, or the time was over, before the
    /// answer came.
    #[error("no answer came to an append; it may or may not be recorded")]
    Indeterminate {
        /// What broke.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The database refused or failed a statement.
    #[error("the database failed to {action}")]
    Database {
        /// What the store was doing.
        action: &'static str,
        /// What the database said.
        source: Box<dyn std::error::Error + Send + Sync>,
        /// Whether the same statement may succeed when tried again.
        retryable: bool,
    },
    /// A snapshot was asked for of an aggregate that has none.
    #[error("the aggregate of {category:?} has no snapshots; add #[snapshot(by_hand)] to it")]
    NoSnapshots {
        /// The aggregate's category.
        category: &'static str,
    },
    /// Another owner has taken the lease, or moved the checkpoint.
    #[error("{name:?} is now run by another owner; this one stops")]
    Fenced {
        /// The name of the lease or the checkpoint.
        name: String,
    },
    /// The store has been shut down.
    #[error("the store is shut down")]
    Closed,
    /// The operation needs PostgreSQL and the store is in memory.
    #[error("{what} needs PostgreSQL; this store is in memory")]
    NeedsPostgres {
        /// The operation.
        what: &'static str,
    },
    /// An inline projection failed, and the append with it. Nothing is recorded.
    #[error("inline projection {projection:?} failed, so nothing was recorded")]
    Inline {
        /// The projection.
        projection: String,
        /// Why.
        source: Box<dyn std::error::Error + Send + Sync>,
        /// Whether the same append may succeed when tried again.
        retryable: bool,
    },
    /// The append would have gone past inline projections that this store does not run.
    #[error(
        "inline projections must see this append, and this store does not run them: {projections}; \
         append through a store that was opened with them"
    )]
    BypassesInline {
        /// Their names.
        projections: String,
    },
    /// An inline projection that this store runs was taken away.
    #[error(
        "inline projection {projection:?} is not registered any more; \
         open the store with it again, or without it"
    )]
    InlineRemoved {
        /// Its name.
        projection: String,
    },
    /// The unit's transaction was ended by a statement of the program's own.
    #[error(
        "the unit of work has no READ COMMITTED transaction of its own any more; \
         do not begin, end or set transactions through sql()"
    )]
    UnitEnded,
    /// What Kafka has of a store was published from another log than this one.
    #[error(
        "Kafka has {store} up to position {published}, with event {event} at position {position}, which is not \
         in this log: the database was restored from an older state, or another one publishes under the same \
         name. Restore the newer state, or give this store another name (Builder::store_name) or, so that \
         consumers do not take its events for others, another context"
    )]
    PublishedElsewhere {
        /// The store as Kafka knows it: the transactional id of its publisher.
        store: String,
        /// The position up to which it is published.
        published: Position,
        /// The last published event.
        event: uuid::Uuid,
        /// Where it was in the log.
        position: Position,
    },
    /// The broker failed, or refused.
    #[error("Kafka: cannot {action}")]
    Broker {
        /// What was being done.
        action: String,
        /// What the broker said.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

impl Error {
    /// True if the same operation may succeed when it is tried again as it is.
    ///
    /// A [`Conflict`](Self::Conflict) is not among them: reload and decide again first.
    /// [`Indeterminate`](Self::Indeterminate) is, if the append carried an idempotency key.
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::Database { retryable, .. } | Self::Inline { retryable, .. } => *retryable,
            // What the server refuses by name, such as a role or a database, it will refuse again.
            Self::Connect { source, .. } => !refuses(&**source),
            Self::Indeterminate { .. }
            | Self::TimedOut { .. }
            | Self::Overloaded { .. }
            | Self::Locked { .. }
            | Self::KeyInFlight
            | Self::Broker { .. } => true,
            _ => false,
        }
    }

    /// A failure to connect, as each of those learns of it that waited for the connection.
    pub(crate) fn shared(action: &'static str, error: &std::sync::Arc<Self>) -> Self {
        match &**error {
            Self::Closed => Self::Closed,
            Self::Connect { target, .. } => {
                Self::Connect { target: target.clone(), source: Box::new(error.clone()) }
            }
            other => Self::Database {
                action,
                retryable: other.is_retryable(),
                source: Box::new(error.clone()),
            },
        }
    }

    pub(crate) fn invalid_append(reason: impl Into<String>) -> Self {
        Self::InvalidAppend { reason: reason.into() }
    }
}

fn held(streams: &[StreamId]) -> String {
    let names: Vec<_> = streams.iter().map(|stream| format!("stream {stream}")).collect();
    names.join(" or ")
}

/// True if a server that was reached will not have us, or we not it.
fn refuses(error: &(dyn std::error::Error + 'static)) -> bool {
    std::iter::successors(Some(error), |error| error.source()).any(|error| {
        // An error that is shared hides behind its Arc.
        if let Some(Error::Connect { source, .. }) =
            error.downcast_ref::<std::sync::Arc<Error>>().map(|error| &**error)
        {
            return refuses(&**source);
        }
        #[cfg(feature = "tls")]
        if let Some(rustls::Error::InvalidCertificate(_)) =
            error.downcast_ref::<std::io::Error>().and_then(|error| error.get_ref()?.downcast_ref())
        {
            return true;
        }
        error
            .downcast_ref::<tokio_postgres::Error>()
            .and_then(tokio_postgres::Error::code)
            .is_some_and(|code| code.code().starts_with("28") || code.code() == "3D000")
    })
}

/// An error and its causes, on one line.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut line = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        line.push_str(": ");
        line.push_str(&cause.to_string());
        source = cause.source();
    }
    line
}

/// Why a command had no effect.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ExecuteError<E> {
    /// The aggregate refused the command. Trying again is no use.
    #[error("the command was rejected")]
    Rejected(#[source] E),
    /// The store failed.
    #[error(transparent)]
    Failed(#[from] Error),
}

impl<E> ExecuteError<E> {
    /// True if the same command may succeed when it is tried again.
    pub fn is_retryable(&self) -> bool {
        matches!(self, Self::Failed(error) if error.is_retryable())
    }
}
