//! Appends in flight: which there are, and a word about one that holds readers back for long.

use std::{
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use chrono::{DateTime, Utc};

use super::{Client, Database, Prepared, Schema, database_error};
use crate::{error::Error, ids::Position, metrics::OLDEST_IN_FLIGHT};

/// An append that has drawn positions, or is about to, and is neither committed nor rolled back.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct InFlight {
    /// Its positions are above this one. Until it ends, readers of the log stay at or below it.
    pub after: Position,
    /// The server process that works for it, which `pg_terminate_backend` ends; `None` if its
    /// transaction is prepared.
    pub pid: Option<i32>,
    /// The `application_name` of its connection.
    pub application_name: String,
    /// When its transaction began; `None` where the role that asks may not see that. A role sees it of
    /// itself, and of others as a member of `pg_read_all_stats`.
    pub since: Option<DateTime<Utc>>,
}

pub(super) async fn in_flight(database: &Database) -> Result<Vec<InFlight>, Error> {
    of(&database.client().await?, database.schema()).await
}

async fn of(client: &Client, schema: &Schema) -> Result<Vec<InFlight>, Error> {
    let failed = |error| database_error("look up the appends in flight", error);
    let sql = schema.sql(include_str!("sql/in_flight.sql"));
    let rows = client.query(&sql, &[]).await.map_err(failed)?;
    rows.iter()
        .map(|row| {
            Ok(InFlight {
                after: Position::new(row.try_get(0)?),
                pid: row.try_get(1)?,
                application_name: row.try_get(2)?,
                since: row.try_get(3)?,
            })
        })
        .collect::<Result<_, _>>()
        .map_err(failed)
}

/// The safe position. Warns of the append that has held it back for long.
pub(super) async fn safe_position(database: &Database) -> Result<Position, Error> {
    let client = database.client().await?;
    SafePosition::prepare(&client, database).await?.query().await
}

/// The question for the safe position, ready to be sent.
pub(super) struct SafePosition<'a> {
    client: &'a Client,
    database: &'a Database,
    statement: Prepared,
}

impl<'a> SafePosition<'a> {
    pub(super) async fn prepare(client: &'a Client, database: &'a Database) -> Result<Self, Error> {
        let statement = client.prepare_cached(&database.0.statements.safe_position).await;
        Ok(Self { client, database, statement: statement.map_err(failed)? })
    }

    /// As [`safe_position`]. It is sent when this is first polled.
    pub(super) async fn query(self) -> Result<Position, Error> {
        let row = self.client.query_one(&self.statement, &[]).await.map_err(failed)?;
        let (safe, last) = (Position::new(row.get(0)), Position::new(row.get(1)));
        let Database(inner, ..) = self.database;
        if let Some(held_back) = inner.held_back.note(safe, last) {
            match of(self.client, &inner.schema).await {
                Ok(in_flight) => {
                    for oldest in in_flight.iter().take(1) {
                        inner.held_back.show(oldest, held_back);
                        let InFlight { after, pid, application_name, since } = oldest;
                        tracing::warn!(
                            %after, pid, application_name, since = since.map(tracing::field::display),
                            ?held_back,
                            "readers of the log wait for an append in flight"
                        );
                    }
                }
                Err(error) => tracing::debug!(%error, "no look at the appends in flight"),
            }
        }
        Ok(safe)
    }
}

fn failed(error: tokio_postgres::Error) -> Error {
    database_error("read a position of the log", error)
}

/// An append is over sooner than that, as a rule.
const LASTING: Duration = Duration::from_millis(20);

/// How long the safe position has stood below the last position drawn.
pub(super) struct HeldBack {
    patience: Duration,
    seen: Mutex<Option<Seen>>,
}

struct Seen {
    safe: Position,
    since: Instant,
    /// When there was a word about it last, or it was first seen.
    told: Instant,
    /// What the gauge shows of it.
    shown: Option<Shown>,
}

/// The gauge of one server process. It goes to zero with this.
struct Shown {
    pid: Option<i32>,
    age: metrics::Gauge,
}

impl Drop for Shown {
    fn drop(&mut self) {
        self.age.set(0.0);
    }
}

impl HeldBack {
    pub(super) fn new(patience: Duration) -> Self {
        Self { patience, seen: Mutex::default() }
    }

    /// Whether readers have waited at one position for a while.
    pub(super) fn lasts(&self) -> bool {
        let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        seen.as_ref().is_some_and(|seen| seen.since.elapsed() > LASTING)
    }

    /// Notes where the log stands. Returns for how long it has stood there, whenever it is time for a
    /// word about that.
    fn note(&self, safe: Position, last: Position) -> Option<Duration> {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        if last <= safe {
            *seen = None;
            return None;
        }
        let now = Instant::now();
        match &mut *seen {
            Some(seen) if seen.safe == safe => {
                if now.duration_since(seen.told) < self.patience {
                    return None;
                }
                seen.told = now;
                Some(now.duration_since(seen.since))
            }
            seen => {
                *seen = Some(Seen { safe, since: now, told: now, shown: None });
                None
            }
        }
    }

    /// Shows the age of the append that the log waits for: of its transaction, or where that is not to be
    /// seen, for how long the log has waited.
    fn show(&self, oldest: &InFlight, held_back: Duration) {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        // It may have ended meanwhile.
        let Some(seen) = seen.as_mut() else { return };
        let age = oldest.since.and_then(|since| (Utc::now() - since).to_std().ok());
        let age = age.unwrap_or(held_back).max(held_back);
        let shown = match seen.shown.take_if(|shown| shown.pid == oldest.pid) {
            Some(shown) => shown,
            None => {
                seen.shown = None;
                // A prepared transaction has no process.
                let pid = oldest.pid.map_or_else(|| "none".to_owned(), |pid| pid.to_string());
                Shown { pid: oldest.pid, age: metrics::gauge!(OLDEST_IN_FLIGHT.name, "pid" => pid) }
            }
        };
        shown.age.set(age.as_secs_f64());
        seen.shown = Some(shown);
    }
}
