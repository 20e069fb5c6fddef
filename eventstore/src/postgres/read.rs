//! Looking things up: recorded outcomes and positions.

use chrono::{DateTime, Utc};

use super::{Client, Database, database_error};
use crate::{
    backend::KnownKey,
    error::Error,
    ids::{Position, Version},
};

/// How long to wait for an append in flight before looking again.
const RETRY: std::time::Duration = std::time::Duration::from_millis(3);

pub(super) async fn known_keys(
    database: &Database,
    keys: &[String],
) -> Result<Vec<KnownKey>, Error> {
    let client = database.client().await?;
    known_keys_on(&client, &database.0.statements.outcomes, keys).await
}

/// The same on a connection that the caller holds, in its transaction if it is in one.
pub(super) async fn known_keys_on(
    client: &Client,
    sql: &str,
    keys: &[String],
) -> Result<Vec<KnownKey>, Error> {
    let failed = |error| database_error("look up idempotency keys", error);
    let statement = client.prepare_cached(sql).await.map_err(failed)?;
    let rows = client.query(&statement, &[&keys]).await.map_err(failed)?;
    Ok(rows
        .iter()
        .map(|row| KnownKey {
            key: row.get(0),
            fingerprint: row.get(1),
            version: Version::new(row.get(2)),
            position: Position::new(row.get(3)),
            events: row.get::<_, i32>(4) as usize,
        })
        .collect())
}

/// A position that the store's functions know.
pub(super) async fn position(database: &Database, sql: &str) -> Result<Position, Error> {
    let failed = |error| database_error("read a position of the log", error);
    let client = database.client().await?;
    let statement = client.prepare_cached(sql).await.map_err(failed)?;
    let row = client.query_one(&statement, &[]).await.map_err(failed)?;
    Ok(Position::new(row.get(0)))
}

pub(super) async fn position_at(
    database: &Database,
    time: DateTime<Utc>,
    clock: Option<DateTime<Utc>>,
) -> Result<Position, Error> {
    let failed = |error: tokio_postgres::Error| {
        match error.as_db_error().filter(|error| error.code().code() == "AN003") {
            Some(future) => Error::Future {
                at: time,
                // In microseconds since 1970.
                now: (future.detail().and_then(|micros| micros.parse().ok()))
                    .and_then(DateTime::from_timestamp_micros)
                    .unwrap_or_else(|| clock.unwrap_or_else(Utc::now)),
            },
            None => database_error("find the position as of a time", error),
        }
    };
    let mut asked_when: Option<i64> = None;
    loop {
        // The connection goes back between two tries: who waits here keeps nobody else waiting.
        let client = database.client().await?;
        let statement =
            client.prepare_cached(&database.0.statements.position_at).await.map_err(failed)?;
        let row =
            client.query_one(&statement, &[&time, &clock, &asked_when]).await.map_err(failed)?;
        drop(client);
        if let Some(position) = row.get(1) {
            return Ok(Position::new(position));
        }
        asked_when = row.get(0);
        tokio::time::sleep(RETRY).await;
    }
}
