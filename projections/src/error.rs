//! What can go wrong on the read side.

use std::{sync::Arc, time::Duration};

use annals_eventstore::{
    Error as StoreError, Position, StreamId, Version, postgres::is_out_of_date,
};

use crate::{control::Kind, guard::Cause};

/// A failure of a worker or of a query on a read model.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// An event cannot be handled, for a reason of its own.
    #[error(transparent)]
    Event(#[from] Box<EventFailure>),
    /// A row's key came back from the database as another one, so that its row would not be found
    /// again.
    #[error(
        "projection {projection:?} has a key that the database changes when it stores it; \
         round times to microseconds"
    )]
    UnstableKey {
        /// The projection.
        projection: &'static str,
    },
    /// The rows that an event touches changed once it had its position: they were not locked.
    #[error(
        "projection {projection:?} runs inline and names other keys for the event at position \
         {position} than before it had one; Project::keys must not look at position, version or \
         recording time"
    )]
    UnlockedKey {
        /// The projection.
        projection: &'static str,
        /// The event's position.
        position: Position,
    },
    /// A worker was to run a projection that runs inline.
    #[error("projection {projection:?} runs inline, so no worker runs it; reset it to change that")]
    RunsInline {
        /// The projection.
        projection: String,
    },
    /// Another kind of projection has the name.
    #[error("the name {projection:?} is taken by another kind of projection: {kind:?}")]
    NameTaken {
        /// The name.
        projection: String,
        /// What has it.
        kind: Kind,
    },
    /// A saga was to hear another service's log.
    #[error(
        "saga {saga:?} records in the log that it hears, and this worker follows that of another service; \
         have a reactor bring what the saga needs into a store of its own"
    )]
    ForeignSaga {
        /// The saga.
        saga: String,
    },
    /// Others work on a projection whose code has changed; it is built anew once they have ended.
    #[error(
        "workers of other code are at work on projection {projection:?}; it changes over when they \
         have ended"
    )]
    InUse {
        /// The projection.
        projection: String,
    },
    /// A projection in SQL failed, for a reason that is not known to be one event's.
    #[error("projection {projection:?} failed to {action}")]
    Sql {
        /// The projection.
        projection: String,
        /// What it was to do.
        action: &'static str,
        /// Why it failed.
        source: Cause,
        /// True if trying again may help.
        retryable: bool,
    },
    /// A query names a column that the read model does not have.
    #[error("read model {projection:?} has no {column:?}; it has the columns {}", columns.join(", "))]
    NoColumn {
        /// The read model.
        projection: &'static str,
        /// What was asked for.
        column: String,
        /// The columns that it has.
        columns: Vec<&'static str>,
    },
    /// A text in a query is no value of its column's type.
    #[error("a text in the query on {projection:?} is no value of its column's type")]
    BadText {
        /// The read model.
        projection: &'static str,
        /// What the database said.
        source: tokio_postgres::Error,
    },
    /// Strong consistency was asked of a read model that is not inline.
    #[error(
        "read model {projection:?} does not run inline, so it can be behind; \
         ask for Consistency::AtLeast, or open the store with_inline"
    )]
    NotInline {
        /// The read model.
        projection: &'static str,
    },
    /// An inline projection is registered with other categories.
    #[error(
        "inline projection {projection:?} is registered for the categories {registered:?}, not for \
         {wanted:?}; reset it to build it anew"
    )]
    OtherCategories {
        /// The projection.
        projection: String,
        /// What is registered.
        registered: Vec<String>,
        /// What this program wants.
        wanted: Vec<String>,
    },
    /// A projection in SQL failed on events from before it was inline.
    #[error("inline projection {projection:?} failed on events after position {after}")]
    CatchUp {
        /// The projection.
        projection: String,
        /// Up to where it has come.
        after: Position,
        /// Why.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The table in the database does not fit the struct.
    #[error(
        "table {table:?} does not fit the read model: {difference}; \
         reset the projection to build it anew"
    )]
    ShapeChanged {
        /// The table.
        table: String,
        /// What differs.
        difference: String,
    },
    /// The tables are those of another version of the code.
    #[error("table {table:?} is not up to date: {difference}; rebuild the read model")]
    Outdated {
        /// The table.
        table: String,
        /// What differs.
        difference: String,
    },
    /// The tables are those of a later version of the code.
    #[error(
        "table {table:?} was made by version {version} of the projection, and this is an earlier one; \
         deploy that version, or roll the rebuild back"
    )]
    Superseded {
        /// The table.
        table: String,
        /// The version that made it.
        version: u32,
    },
    /// Another process rebuilds the read model.
    #[error("read model {projection:?} is being rebuilt by another process")]
    RebuildRuns {
        /// The read model.
        projection: &'static str,
    },
    /// There is nothing that was built, or replaced, to do this with.
    #[error("there are no tables of a rebuild of read model {projection:?}; build it first")]
    NotRebuilt {
        /// The read model.
        projection: &'static str,
    },
    /// Something depends on the tables in use that cannot be taken along to other tables.
    #[error(
        "{object} is built on read model {projection:?}, and cannot be moved to other tables; \
         drop it, and create it again after the swap"
    )]
    InTheWay {
        /// The read model.
        projection: &'static str,
        /// What it is.
        object: String,
    },
    /// A value of a row cannot be stored in its column.
    #[error("a value of read model {projection:?} does not fit its column")]
    UnfitValue {
        /// The read model.
        projection: &'static str,
        /// Why not.
        source: Cause,
    },
    /// A part of a rebuild ended for a reason of its own.
    #[error("the rebuild failed")]
    Rebuild {
        /// Why.
        source: Cause,
    },
    /// The read model has no tables yet: its first worker creates them.
    #[error("read model {projection:?} has not been built yet; is its worker running?")]
    NotBuilt {
        /// The read model.
        projection: &'static str,
    },
    /// The read model has not come as far as the query needs.
    #[error(
        "read model {projection:?} has come to position {reached}, the query needs {needed}; is its worker running?"
    )]
    NotReached {
        /// The read model.
        projection: &'static str,
        /// Where it is.
        reached: Position,
        /// What the query needs.
        needed: Position,
    },
    /// It did not come as far within the time that the caller allowed.
    #[error(
        "read model {projection:?} did not reach position {needed} within {waited:?}; it is at {reached}"
    )]
    TimedOut {
        /// The read model.
        projection: &'static str,
        /// Where it is.
        reached: Position,
        /// What the query needs.
        needed: Position,
        /// How long the query waited.
        waited: Duration,
    },
    /// A live read model no longer follows the log.
    #[error("live read model {projection:?} has stopped at position {position}")]
    Stopped {
        /// The read model.
        projection: &'static str,
        /// Where it is, and stays.
        position: Position,
        /// What it failed on; `None` if it was told to stop, or its task panicked.
        source: Option<Arc<Error>>,
    },
    /// A live read model has folded an event that the log no longer has.
    #[error(
        "live read model {projection:?} has folded an event at position {position} that the log no \
         longer has, after a failover for example; start it anew"
    )]
    EventLost {
        /// The read model.
        projection: &'static str,
        /// The event's position.
        position: Position,
    },
    /// A subscriber was too slow for the changes of a live read model.
    #[error(
        "{missed} changes of live read model {projection:?} came and went before they were looked at; \
         begin with its rows anew, look faster, or ask for a larger buffer"
    )]
    Lagged {
        /// The read model.
        projection: &'static str,
        /// How many changes were missed.
        missed: u64,
    },
    /// The read model has no history.
    #[error("read model {projection:?} keeps no history; add `history` to #[read_model(..)]")]
    NoHistory {
        /// The read model.
        projection: &'static str,
    },
    /// History of that time is not kept any more.
    #[error(
        "read model {projection:?} keeps its history from position {kept_from} on, the query is as of \
         {needed}; replay the log up to there instead"
    )]
    Forgotten {
        /// The read model.
        projection: &'static str,
        /// From where on it is kept.
        kept_from: Position,
        /// What the query needs.
        needed: Position,
    },
    /// A version of one stream is not a moment of a read model.
    #[error("a read model cannot be read as of a stream's version; use a time or a position")]
    NotAMoment,
    /// Kafka failed, or what is there cannot be read.
    #[cfg(feature = "kafka")]
    #[error(transparent)]
    Kafka(#[from] crate::kafka::FeedError),
    /// Another service's events are gone that a projection has not seen.
    #[cfg(feature = "kafka")]
    #[error(
        "projection {projection:?} has come to position {position}, and events behind it are gone from Kafka. \
         Where the topics still hold all events from the first on, reset the projection, and it is built anew; \
         else ask the service that owns them to publish them again"
    )]
    Gone {
        /// The projection.
        projection: String,
        /// Up to where it has come.
        position: Position,
        /// What is gone.
        #[source]
        lost: crate::kafka::Lost,
    },
    /// The positions in a schema would be those of several logs.
    #[cfg(feature = "kafka")]
    #[error(
        "the schema {schema:?} follows {}, and cannot follow {} too; use another schema, by Options::schema",
        whose(found.as_deref()), whose(wanted.as_deref())
    )]
    MixedLogs {
        /// The schema.
        schema: String,
        /// The context of the service whose log it follows; none if it is the store's own.
        found: Option<String>,
        /// The one that was to be followed.
        wanted: Option<String>,
    },
    /// Of another service's log, a place is known by its position only.
    #[cfg(feature = "kafka")]
    #[error(
        "reactor {projection:?} cannot start at a time of another service's log; use a position"
    )]
    NoTimes {
        /// The reactor.
        projection: String,
    },
    /// The database failed a statement on what is known of projections.
    #[error("the database failed to {action}")]
    Bookkeeping {
        /// What was being done.
        action: &'static str,
        /// What the database said.
        source: tokio_postgres::Error,
    },
    /// The database refused or failed a statement.
    #[error("projection {projection:?}: the database failed to {action}")]
    Database {
        /// The projection.
        projection: String,
        /// What was being done.
        action: &'static str,
        /// What the database said.
        source: tokio_postgres::Error,
    },
}

/// An event that a projection cannot handle, for a reason of the event's own: it does not decode, its
/// rows cannot be made out, the projection's code fails on it or panics, or the database refuses what came
/// of it.
#[derive(Debug, thiserror::Error)]
#[error(
    "projection {projection:?} cannot handle event {version} of stream {stream} at position {position}"
)]
#[non_exhaustive]
pub struct EventFailure {
    /// The projection.
    pub projection: String,
    /// The event's stream.
    pub stream: StreamId,
    /// The event's version.
    pub version: Version,
    /// The event's position.
    pub position: Position,
    /// Why not.
    pub source: Cause,
}

impl Error {
    /// True if trying again may help.
    pub fn is_retryable(&self) -> bool {
        match self {
            // The checkpoint says whether a commit came through.
            Self::Store(StoreError::Indeterminate { .. }) => true,
            Self::Store(error) => error.is_retryable(),
            Self::NotBuilt { .. }
            | Self::NotReached { .. }
            | Self::TimedOut { .. }
            | Self::RebuildRuns { .. }
            | Self::InUse { .. } => true,
            Self::Sql { retryable, .. } => *retryable,
            #[cfg(feature = "kafka")]
            Self::Kafka(error) => error.is_retryable(),
            // A statement of a read model has its effect with the checkpoint or not at all.
            Self::Database { source, .. } | Self::Bookkeeping { source, .. } => may_pass(source),
            _ => false,
        }
    }
}

#[cfg(feature = "kafka")]
fn whose(context: Option<&str>) -> String {
    context.map_or("its own store".to_owned(), |context| format!("the events of {context:?}"))
}

/// True if the same statement may succeed on another connection, or later.
pub(crate) fn may_pass(error: &tokio_postgres::Error) -> bool {
    use tokio_postgres::error::{Severity, SqlState as S};
    if is_out_of_date(error) {
        return true;
    }
    let Some(error) = error.as_db_error() else {
        // The connection broke. The other failures on this side, values that do not fit a column or
        // a field, have a cause that is no I/O error, and come again.
        let cause = std::error::Error::source(error);
        return cause.is_none_or(|cause| cause.is::<std::io::Error>());
    };
    // The database ended the session: it shuts down, or someone had it end this one.
    matches!(error.parsed_severity(), Some(Severity::Fatal | Severity::Panic))
        // A pooler says that the session is gone by a connection exception.
        || error.code().code().starts_with("08")
        || [
            S::T_R_SERIALIZATION_FAILURE,
            S::T_R_DEADLOCK_DETECTED,
            S::ADMIN_SHUTDOWN,
            S::CRASH_SHUTDOWN,
            S::CANNOT_CONNECT_NOW,
            S::TOO_MANY_CONNECTIONS,
            S::QUERY_CANCELED,
            S::LOCK_NOT_AVAILABLE,
            S::DISK_FULL,
        ]
        .contains(error.code())
}
