//! Looking after sagas: which there are, what they wait for, and what to do about those that are stuck.
//!
//! It works from any process: it only reads and writes what workers read, and they do what is asked within a second
//! or so.
//!
//! ```no_run
//! # use annals_eventstore::EventStore;
//! # async fn run(store: EventStore) -> Result<(), Box<dyn std::error::Error>> {
//! use annals_projections::saga::{SagaStatus, control};
//!
//! for saga in control::list(&store, Some("booking")).await? {
//!     if saga.status == SagaStatus::Stuck {
//!         println!("{} {}: {}", saga.saga, saga.key, saga.reason.unwrap_or_default());
//!     }
//! }
//! // The hotel is back:
//! control::retry(&store, "booking", "trip-7", "the hotel is back").await?;
//! # Ok(()) }
//! ```

use annals_eventstore::{EventQuery, EventStore, Recorded, StreamId};
use chrono::{DateTime, Utc};
use futures::TryStreamExt;
use tokio_postgres::Row;

use super::SagaStatus;
use crate::error::Error;

/// What somebody can have a saga do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Wish {
    /// To try again what it is stuck at.
    Retry,
    /// To go on as if what it is stuck at were done.
    Skip,
    /// To undo what was done.
    Compensate,
    /// To end where it stands.
    Abort,
}

impl Wish {
    /// As it is stored.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Retry => "retry",
            Self::Skip => "skip",
            Self::Compensate => "compensate",
            Self::Abort => "abort",
        }
    }

    pub(super) fn of(stored: &str) -> Option<Self> {
        [Self::Retry, Self::Skip, Self::Compensate, Self::Abort]
            .into_iter()
            .find(|wish| wish.as_str() == stored)
    }
}

/// How one saga is doing.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct SagaSummary {
    /// Which saga: its category.
    pub saga: String,
    /// The key of its stream.
    pub key: String,
    /// How it is doing.
    pub status: SagaStatus,
    /// The step that it is at.
    pub step: Option<String>,
    /// Why it compensates, is stuck or was aborted.
    pub reason: Option<String>,
    /// How often the call that it waits for was begun.
    pub attempts: u32,
    /// When that is tried next, or, while a worker is at it, when another one may take over.
    pub call_due: Option<DateTime<Utc>>,
    /// When its next timer goes off.
    pub next_timer: Option<DateTime<Utc>>,
    /// What is asked of it and not done yet.
    pub asked: Option<Wish>,
    /// When it began.
    pub begun_at: DateTime<Utc>,
    /// When something last happened to it.
    pub changed_at: DateTime<Utc>,
}

const SUMMARY: &str = "select saga, key, status, step, reason, attempts, call_due,
    case when asked is null then look_at end, asked, begun_at, changed_at from {schema}.sagas";

fn summary(row: &Row) -> SagaSummary {
    SagaSummary {
        saga: row.get(0),
        key: row.get(1),
        status: SagaStatus::of(row.get(2)),
        step: row.get(3),
        reason: row.get(4),
        attempts: row.get::<_, i32>(5).unsigned_abs(),
        call_due: row.get(6),
        next_timer: row.get(7),
        asked: row.get::<_, Option<&str>>(8).and_then(Wish::of),
        begun_at: row.get(9),
        changed_at: row.get(10),
    }
}

/// The sagas that have not ended, of one category or of all: first those that are stuck, then the oldest.
///
/// # Errors
/// If the store is in memory, or the database fails.
pub async fn list(store: &EventStore, saga: Option<&str>) -> Result<Vec<SagaSummary>, Error> {
    let database = store.database()?;
    let failed = |source| Error::Bookkeeping { action: "list sagas", source };
    let sql = database.schema().sql(&format!(
        "{SUMMARY} where status in ('running', 'compensating', 'stuck')
           and ($1::text is null or saga = $1)
         order by status <> 'stuck', begun_at, saga, key"
    ));
    let rows = database.client().await?.query(&sql, &[&saga]).await.map_err(failed)?;
    Ok(rows.iter().map(summary).collect())
}

/// One saga, with all that is recorded in its stream; `None` if there is none. An archived stream is read too.
///
/// # Errors
/// If the store is in memory, or the database fails.
pub async fn show(
    store: &EventStore,
    saga: &str,
    key: &str,
) -> Result<Option<(SagaSummary, Vec<Recorded>)>, Error> {
    let database = store.database()?;
    let failed = |source| Error::Bookkeeping { action: "show a saga", source };
    let sql = database.schema().sql(&format!("{SUMMARY} where saga = $1 and key = $2"));
    let row = database.client().await?.query_opt(&sql, &[&saga, &key]).await.map_err(failed)?;
    let Some(row) = row else { return Ok(None) };
    let query = EventQuery::stream(&StreamId::new(saga, key)?).include_archived();
    let events = store.read(query).try_collect().await?;
    Ok(Some((summary(&row), events)))
}

/// Has a saga that is stuck try again: a call whose outcome nobody knows under the id that it had, one that was
/// refused under another. Returns false if it is not stuck, or is asked for something already.
///
/// # Errors
/// If the store is in memory, or the database fails.
pub async fn retry(store: &EventStore, saga: &str, key: &str, why: &str) -> Result<bool, Error> {
    ask(store, saga, key, Wish::Retry, why).await
}

/// Has a saga that is stuck go on as if what it is stuck at were done: somebody did it by hand, say. A step that was
/// skipped is undone like the others if the saga compensates later. Returns as [`retry`].
///
/// # Errors
/// If the store is in memory, or the database fails.
pub async fn skip(store: &EventStore, saga: &str, key: &str, why: &str) -> Result<bool, Error> {
    ask(store, saga, key, Wish::Skip, why).await
}

/// Has a saga undo what was done. A call that a worker makes is waited for. Returns false if it undoes it already, has
/// ended, or is asked for something.
///
/// # Errors
/// If the store is in memory, or the database fails.
pub async fn compensate(
    store: &EventStore,
    saga: &str,
    key: &str,
    why: &str,
) -> Result<bool, Error> {
    ask(store, saga, key, Wish::Compensate, why).await
}

/// Ends a saga where it stands: nothing is done or undone any more, and what comes of a call that a worker makes is
/// not noted. Returns false if it has ended, or is asked for something.
///
/// # Errors
/// If the store is in memory, or the database fails.
pub async fn abort(store: &EventStore, saga: &str, key: &str, why: &str) -> Result<bool, Error> {
    ask(store, saga, key, Wish::Abort, why).await
}

async fn ask(
    store: &EventStore,
    saga: &str,
    key: &str,
    wish: Wish,
    why: &str,
) -> Result<bool, Error> {
    let database = store.database()?;
    let failed = |source| Error::Bookkeeping { action: "ask something of a saga", source };
    let sql = database.schema().sql(
        "update {schema}.sagas set asked = $3, asked_why = $4, look_at = clock_timestamp()
         where saga = $1 and key = $2 and asked is null
           and case $3
               when 'compensate' then status in ('running', 'stuck')
               when 'abort' then status in ('running', 'compensating', 'stuck')
               else status = 'stuck'
           end",
    );
    // PostgreSQL's text holds no NUL.
    let (asked, why) = (wish.as_str(), why.replace('\0', "\u{fffd}"));
    let client = database.client().await?;
    let changed = client.execute(&sql, &[&saga, &key, &asked, &why]).await.map_err(failed)?;
    Ok(changed > 0)
}
