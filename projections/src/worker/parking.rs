//! The streams that a slice of a projection leaves out, because an event of theirs failed.

use std::collections::HashMap;

use annals_eventstore::{
    Position, StreamId, Version,
    postgres::{Database, GenericClient},
};

use super::{failure::text, slice::slice_of};
use crate::{
    error::{Error, EventFailure},
    offsets::RecordAt,
};

/// The event at which a stream is parked.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ParkedAt {
    pub(crate) position: Position,
    pub(crate) version: Version,
}

impl From<&EventFailure> for ParkedAt {
    fn from(failure: &EventFailure) -> Self {
        Self { position: failure.position, version: failure.version }
    }
}

pub(crate) type Parked = HashMap<StreamId, ParkedAt>;

/// The parked streams of a slice.
pub(crate) async fn load(
    database: &Database,
    name: &str,
    slice: u16,
    slices: u16,
) -> Result<Parked, Error> {
    let sql = database.schema().sql(
        "select category, key, position, version from {schema}.parked_streams where projection = $1",
    );
    let failed = |source| Error::Bookkeeping { action: "read what is parked", source };
    let rows = database.client().await?.query(&sql, &[&name]).await.map_err(failed)?;
    let mut parked = Parked::new();
    for row in rows {
        let stream = StreamId::new(row.get::<_, &str>(0), row.get::<_, &str>(1))?;
        let at =
            ParkedAt { position: Position::new(row.get(2)), version: Version::new(row.get(3)) };
        if slice_of(&stream, slices) == slice {
            parked.insert(stream, at);
        }
    }
    Ok(parked)
}

/// Parks a stream at an event, or notes that it failed again, in the caller's transaction; and that its record is to be
/// put aside, if it has one.
pub(crate) async fn park(
    database: &Database,
    client: &impl GenericClient,
    name: &str,
    failure: &EventFailure,
    record: Option<&RecordAt>,
) -> Result<ParkedAt, Error> {
    let sql = database.schema().sql(
        "insert into {schema}.parked_streams as s
             (projection, category, key, position, version, reason,
              record_topic, record_partition, record_offset)
         values ($1, $2, $3, $4, $5, $6, $7, $8, $9)
         on conflict (projection, category, key) do update
         set position = excluded.position, version = excluded.version, reason = excluded.reason,
             attempts = case when s.position = excluded.position then s.attempts else 0 end + 1,
             asked = null, record_topic = excluded.record_topic,
             record_partition = excluded.record_partition, record_offset = excluded.record_offset",
    );
    let EventFailure { stream, version, position, source, .. } = failure;
    // PostgreSQL's text holds no NUL.
    let reason = text(&**source).replace('\0', "\u{fffd}");
    let parked = client
        .execute(
            &sql,
            &[
                &name,
                &stream.category(),
                &stream.key(),
                &position.get(),
                &version.get(),
                &reason,
                &record.map(|record| &record.topic),
                &record.map(|record| record.partition),
                &record.map(|record| record.offset),
            ],
        )
        .await;
    parked.map_err(|source| Error::Bookkeeping { action: "park a stream", source })?;
    Ok(failure.into())
}

/// Pauses a projection, in the caller's transaction.
pub(crate) async fn pause(
    database: &Database,
    client: &impl GenericClient,
    name: &str,
    reason: &str,
) -> Result<(), Error> {
    let sql = database.schema().sql(
        "update {schema}.projections set paused = $2, changed_at = clock_timestamp()
         where name = $1",
    );
    let paused = client.execute(&sql, &[&name, &reason.replace('\0', "\u{fffd}")]).await;
    paused.map(drop).map_err(|source| Error::Bookkeeping { action: "pause a projection", source })
}
