//! What is parked, and what to do about it.

use annals_eventstore::{EventStore, Position, StreamId, Version};
use chrono::{DateTime, Utc};

use super::{shown, stored};
use crate::error::Error;

/// A stream that a projection leaves out from an event on, because that event failed.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct ParkedStream {
    /// The projection.
    pub projection: String,
    /// The stream.
    pub stream: StreamId,
    /// The version of the event that failed.
    pub version: Version,
    /// Its position.
    pub position: Position,
    /// Why it failed.
    pub reason: String,
    /// How often it was tried.
    pub attempts: u32,
    /// Since when the stream is parked.
    pub parked_at: DateTime<Utc>,
    /// Whether a retry, or to leave the event out, is asked for and not done yet.
    pub asked: bool,
}

/// The streams that are parked, of one projection or of all, in the order of positions.
///
/// # Errors
/// If the store is in memory, or the database fails.
pub async fn parked(
    store: &EventStore,
    projection: Option<&str>,
) -> Result<Vec<ParkedStream>, Error> {
    let database = store.database()?;
    let sql = database.schema().sql(
        "select projection, category, key, version, position, reason, attempts, parked_at,
                asked is not null
         from {schema}.parked_streams where $1::text is null or projection = $1
         order by position, projection",
    );
    let failed = |source| Error::Bookkeeping { action: "list what is parked", source };
    let name = projection.map(stored);
    let rows = database.client().await?.query(&sql, &[&name]).await.map_err(failed)?;
    rows.iter()
        .map(|row| {
            Ok(ParkedStream {
                projection: shown(row.get(0)),
                stream: StreamId::new(row.get::<_, &str>(1), row.get::<_, &str>(2))?,
                version: Version::new(row.get(3)),
                position: Position::new(row.get(4)),
                reason: row.get(5),
                attempts: row.get::<_, i32>(6).try_into().unwrap_or_default(),
                parked_at: row.get(7),
                asked: row.get(8),
            })
        })
        .collect()
}

/// Has the worker try again what is parked: of one stream, or of all. The event that failed and all that
/// came behind it are applied in their order; a stream of which one fails again stays parked there.
///
/// Its effect on the read model begins when it is applied. What was answered for the past stays as it was.
/// Returns how many streams are to be tried.
///
/// # Errors
/// If the store is in memory, or the database fails.
pub async fn retry(
    store: &EventStore,
    projection: &str,
    stream: Option<&StreamId>,
) -> Result<u64, Error> {
    ask(store, projection, stream, "retry").await
}

/// Has the worker leave out the event at which a stream is parked, and go on with the next one of the
/// stream. The event stays in the log, and a rebuild meets it again. Returns false if the stream is not
/// parked, or is asked to go on already: it may be past that event.
///
/// # Errors
/// If the store is in memory, or the database fails.
pub async fn discard(
    store: &EventStore,
    projection: &str,
    stream: &StreamId,
) -> Result<bool, Error> {
    Ok(ask(store, projection, Some(stream), "discard").await? > 0)
}

async fn ask(
    store: &EventStore,
    projection: &str,
    stream: Option<&StreamId>,
    what: &str,
) -> Result<u64, Error> {
    let database = store.database()?;
    let sql = database.schema().sql(
        "update {schema}.parked_streams set asked = $2
         where projection = $1 and ($3::text is null or category = $3 and key = $4)
           and ($2 = 'retry' or asked is null)",
    );
    let (category, key) = (stream.map(StreamId::category), stream.map(StreamId::key));
    let failed = |source| Error::Bookkeeping { action: "ask for what is parked", source };
    let client = database.client().await?;
    let asked = client.execute(&sql, &[&stored(projection), &what, &category, &key]).await;
    asked.map_err(failed)
}
