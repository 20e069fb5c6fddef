//! The life of streams and of idempotency keys, in the database.

use std::time::Duration;

use serde::Deserialize;

use super::{Database, database_error};
use crate::{
    append::ExpectedVersion,
    error::Error,
    ids::{Position, StreamId, Version},
    life::{StreamInfo, StreamState},
};

/// SQLSTATEs that the store's functions raise.
const NOT_AS_EXPECTED: &str = "AN030";
const DELETED: &str = "AN031";
const ARCHIVED: &str = "AN032";
const READER_BEHIND: &str = "AN033";

pub(super) async fn stream_info(
    database: &Database,
    stream: &StreamId,
) -> Result<Option<StreamInfo>, Error> {
    let failed = |error| database_error("look up a stream", error);
    let sql = database.schema().sql(
        "select version, state from {schema}.streams
         where category = $1 and key = $2 and version > 0",
    );
    let client = database.client().await?;
    let statement = client.prepare_cached(&sql).await.map_err(failed)?;
    let row = client.query_opt(&statement, &[&stream.category(), &stream.key()]).await;
    let row = row.map_err(failed)?;
    Ok(row.map(|row| StreamInfo {
        version: Version::new(row.get(0)),
        state: StreamState::stored(i64::from(row.get::<_, i16>(1))),
    }))
}

pub(super) async fn change_state(
    database: &Database,
    stream: &StreamId,
    expected: ExpectedVersion,
    state: StreamState,
) -> Result<Version, Error> {
    let (category, key) = (stream.category(), stream.key());
    let version = match expected {
        ExpectedVersion::Any => -1,
        ExpectedVersion::Exists => -2,
        ExpectedVersion::NoStream => 0,
        ExpectedVersion::Exact(version) => version.get(),
    };
    let client = database.client().await?;
    let function = match state {
        StreamState::Live => "select {schema}.restore_stream($1, $2)",
        StreamState::Deleted => "select {schema}.delete_stream($1, $2, $3)",
        StreamState::Archived => "select {schema}.archive_stream($1, $2, $3)",
    };
    let sql = database.schema().sql(function);
    let row = match state {
        StreamState::Live => client.query_one(&sql, &[&category, &key]).await,
        _ => client.query_one(&sql, &[&category, &key, &version]).await,
    };
    let row = row.map_err(|error| {
        refusal(&error, stream, expected)
            .unwrap_or_else(|| database_error("change the state of a stream", error))
    })?;
    Ok(Version::new(row.get(0)))
}

/// Why the database refuses, if it is for a reason of its functions.
fn refusal(
    error: &tokio_postgres::Error,
    stream: &StreamId,
    expected: ExpectedVersion,
) -> Option<Error> {
    #[derive(Deserialize)]
    struct Behind {
        reader: String,
        at: Position,
        needed: Position,
    }
    let error = error.as_db_error()?;
    let stream = stream.clone();
    match error.code().code() {
        NOT_AS_EXPECTED => {
            let actual = Version::new(error.detail()?.parse().ok()?);
            let exists = actual > Version::NONE;
            let expected = if exists { expected } else { ExpectedVersion::Exists };
            Some(Error::Conflict { stream, expected, actual })
        }
        DELETED => Some(Error::StreamDeleted { stream }),
        ARCHIVED => Some(Error::StreamArchived { stream }),
        READER_BEHIND => {
            let Behind { reader, at, needed } = serde_json::from_str(error.detail()?).ok()?;
            Some(Error::ReaderBehind { stream, reader, at, needed })
        }
        _ => None,
    }
}

pub(super) async fn remove_keys(database: &Database, older_than: Duration) -> Result<u64, Error> {
    let failed = |error| database_error("remove idempotency keys", error);
    let sql = database.schema().sql(
        "select removed, next_page from {schema}.remove_idempotency_keys(
             $1 * interval '1 second', $2)",
    );
    let seconds = older_than.as_secs_f64();
    let (mut removed, mut page) = (0, 0i64);
    loop {
        // The connection goes back between two steps.
        let client = database.client().await?;
        let statement = client.prepare_cached(&sql).await.map_err(failed)?;
        let row = client.query_one(&statement, &[&seconds, &page]).await.map_err(failed)?;
        // Null where another process is at it.
        removed += row.get::<_, Option<i64>>(0).unwrap_or(0) as u64;
        match row.get(1) {
            Some(next) => page = next,
            None => return Ok(removed),
        }
    }
}
