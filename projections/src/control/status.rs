//! How projections are doing.

use std::{collections::BTreeMap, time::Duration};

use annals_eventstore::{EventStore, Position, postgres::Database};
use chrono::{DateTime, Utc};

use super::{PREFIX, shown};
use crate::error::Error;

/// How a projection is doing.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct ProjectionStatus {
    /// The projection: the name of its table, or the one that it gives itself.
    pub name: String,
    /// What kind of projection it is.
    pub kind: Kind,
    /// What it is doing.
    pub state: State,
    /// Up to where all of its slices have come.
    pub position: Position,
    /// How many positions of the log are behind that. Those of other categories count too.
    pub behind: u64,
    /// For how long the next event has been waiting; `None` if there is none.
    pub waiting: Option<Duration>,
    /// How many streams are parked.
    pub parked: u64,
    /// The version of the code that made its rows.
    pub version: u32,
    /// From where on its history is kept.
    pub history_from: Position,
    /// Its slices, in their order.
    pub slices: Vec<SliceStatus>,
}

/// A kind of projection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Kind {
    /// A read model: rows that are folds of events.
    Rows,
    /// One that writes with SQL of its own.
    Sql,
    /// A reactor, with effects outside of the database.
    Reactor,
    /// The feed of a saga.
    Saga,
}

impl Kind {
    /// A word for it: `rows`, `sql`, `reactor` or `saga`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Rows => "rows",
            Self::Sql => "sql",
            Self::Reactor => "reactor",
            Self::Saga => "saga",
        }
    }

    pub(crate) fn of(stored: &str) -> Self {
        match stored {
            "sql" => Self::Sql,
            "reactor" => Self::Reactor,
            "saga" => Self::Saga,
            _ => Self::Rows,
        }
    }
}

/// What a projection is doing.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum State {
    /// A worker has the lease of each slice.
    Running,
    /// It is in the transaction of each append, and never behind.
    Inline,
    /// A slice has no worker.
    Stopped,
    /// It was paused, by somebody or by itself, for this reason.
    Paused(String),
    /// What it acts on failed again and again: its circuit breaker is open, and nothing is tried meanwhile.
    Broken {
        /// The last failure.
        reason: String,
        /// When the next trial is due.
        until: DateTime<Utc>,
    },
}

/// What brings a slice of a projection its events.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum FedBy {
    /// The store.
    Store,
    /// Kafka.
    Kafka,
    /// The store, since Kafka does not hold what comes next. Kafka does from there on.
    Replay {
        /// Why, if it is not what is done at first.
        reason: Option<String>,
    },
}

impl FedBy {
    fn of(stored: &str, reason: Option<String>) -> Self {
        match stored {
            "kafka" => Self::Kafka,
            "replay" => Self::Replay { reason },
            _ => Self::Store,
        }
    }

    /// In a word: `store`, `kafka` or `replay`.
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Store => "store",
            Self::Kafka => "kafka",
            Self::Replay { .. } => "replay",
        }
    }

    /// Why it is replayed, if it is not what is done at first.
    pub fn reason(&self) -> Option<&str> {
        match self {
            Self::Replay { reason } => reason.as_deref(),
            Self::Store | Self::Kafka => None,
        }
    }
}

/// Says what feeds the slice that is worked on in an epoch.
pub(crate) async fn set_fed_by(
    database: &Database,
    checkpoint: &str,
    epoch: i64,
    fed_by: &FedBy,
) -> Result<(), Error> {
    let failed = |source| Error::Bookkeeping { action: "say what feeds a projection", source };
    let sql = database.schema().sql(
        "update {schema}.checkpoints set fed_by = $3, fed_by_reason = $4
         where name = $1 and epoch = $2 and (fed_by, fed_by_reason) is distinct from ($3, $4)",
    );
    // PostgreSQL's text holds no NUL.
    let reason = fed_by.reason().map(|reason| reason.replace('\0', "\u{fffd}"));
    let client = database.client().await?;
    let set = client.execute(&sql, &[&checkpoint, &epoch, &fed_by.as_str(), &reason]).await;
    set.map(drop).map_err(failed)
}

/// How a slice of a projection is doing.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct SliceStatus {
    /// Up to where it has come.
    pub position: Position,
    /// Who has its lease, as `host:process:number`.
    pub owner: Option<String>,
    /// The epoch of that lease.
    pub epoch: i64,
    /// What feeds it, or did when it was last worked on.
    pub fed_by: FedBy,
    /// When its checkpoint moved last.
    pub updated_at: DateTime<Utc>,
}

/// How all projections of a store are doing that were ever begun, in the order of their names.
///
/// # Errors
/// If the store is in memory, or the database fails.
pub async fn status(store: &EventStore) -> Result<Vec<ProjectionStatus>, Error> {
    let database = store.database()?;
    let safe = store.safe_position().await?;
    let failed = |source| Error::Bookkeeping { action: "see how projections are doing", source };
    let sql = database.schema().sql(include_str!("../sql/status.sql"));
    let client = database.client().await?;
    let rows = client.query(&sql, &[&PREFIX]).await.map_err(failed)?;
    let mut all: BTreeMap<String, ProjectionStatus> = BTreeMap::new();
    for row in rows {
        let name: String = row.get(0);
        let slice = SliceStatus {
            position: Position::new(row.get(1)),
            owner: row.get(2),
            epoch: row.get(3),
            fed_by: FedBy::of(row.get(13), row.get(14)),
            updated_at: row.get(4),
        };
        let broken = row.get::<_, Option<_>>(11).zip(row.get::<_, Option<_>>(12));
        let state = match (row.get::<_, Option<String>>(5), row.get(6), broken) {
            (_, true, _) => State::Inline,
            (Some(reason), ..) => State::Paused(reason),
            (None, false, Some((reason, until))) => State::Broken { reason, until },
            (None, false, None) => State::Running,
        };
        let projection = all.entry(name).or_insert_with_key(|name| ProjectionStatus {
            name: shown(name),
            kind: Kind::of(row.get(10)),
            state,
            position: slice.position,
            behind: 0,
            waiting: None,
            parked: row.get::<_, i64>(9) as u64,
            version: row.get::<_, i32>(7) as u32,
            history_from: Position::new(row.get(8)),
            slices: Vec::new(),
        });
        projection.position = projection.position.min(slice.position);
        let works = matches!(projection.state, State::Running | State::Broken { .. });
        if slice.owner.is_none() && works {
            projection.state = State::Stopped;
        }
        projection.slices.push(slice);
    }
    let next = database.schema().sql(
        "select extract(epoch from clock_timestamp() - recorded_at)::float8
         from {schema}.events where position > $1 order by position limit 1",
    );
    for projection in all.values_mut() {
        if projection.state == State::Inline {
            projection.position = safe;
        }
        let behind = safe.get() - projection.position.get();
        if behind > 0 {
            projection.behind = behind as u64;
            let since = client.query_opt(&next, &[&projection.position.get()]).await;
            let seconds = since.map_err(failed)?.map(|row| row.get::<_, f64>(0).max(0.0));
            projection.waiting = seconds.map(Duration::from_secs_f64);
        }
    }
    Ok(all.into_values().collect())
}
