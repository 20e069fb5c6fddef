//! COPY, PostgreSQL's fastest way in and out: what bounds every store on it.

use std::{
    error::Error,
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
    time::SystemTime,
};

use annals::NewEvent;
use anyhow::Result;
use bytes::BytesMut;
use tokio_postgres::{
    Client,
    binary_copy::BinaryCopyInWriter,
    types::{IsNull, ToSql, Type, accepts, to_sql_checked},
};

/// The columns of the table of events, and their types.
pub(super) const COLUMNS: &str = "position, stream_id, version, event_id, type, schema_version, \
     recorded_at, occurred_at, payload, metadata";
const TYPES: [Type; 10] = [
    Type::INT8,
    Type::INT8,
    Type::INT8,
    Type::UUID,
    Type::TEXT,
    Type::INT4,
    Type::TIMESTAMPTZ,
    Type::TIMESTAMPTZ,
    Type::JSON,
    Type::JSON,
];

/// Copies events into a table, from several connections at once.
#[derive(Clone)]
pub(super) struct Target {
    pub(super) table: &'static str,
    /// The last position and the last stream that were given away.
    pub(super) positions: Arc<AtomicI64>,
    pub(super) streams: Arc<AtomicI64>,
}

impl Target {
    pub(super) fn new(table: &'static str) -> Self {
        Self { table, positions: Arc::default(), streams: Arc::default() }
    }

    /// Copies the events of new streams, in one transaction; returns how many there are.
    pub(super) async fn copy(&self, client: &Client, streams: Vec<Vec<NewEvent>>) -> Result<u64> {
        let events: usize = streams.iter().map(Vec::len).sum();
        let mut position = self.positions.fetch_add(events as i64, Ordering::Relaxed);
        let mut stream = self.streams.fetch_add(streams.len() as i64, Ordering::Relaxed);
        let copy = format!("copy {} ({COLUMNS}) from stdin (format binary)", self.table);
        let writer = BinaryCopyInWriter::new(client.copy_in(&copy).await?, &TYPES);
        let mut writer = std::pin::pin!(writer);
        let now = SystemTime::now();
        let (occurred, metadata) = (None::<SystemTime>, None::<RawJson>);
        for events in &streams {
            stream += 1;
            for (event, version) in events.iter().zip(1_i64..) {
                position += 1;
                let schema = i32::try_from(event.schema_version)?;
                let payload = RawJson(event.payload.as_bytes());
                let row: [&(dyn ToSql + Sync); 10] = [
                    &position,
                    &stream,
                    &version,
                    &event.id,
                    &event.event_type,
                    &schema,
                    &now,
                    &occurred,
                    &payload,
                    &metadata,
                ];
                writer.as_mut().write(&row).await?;
            }
        }
        Ok(writer.finish().await?)
    }
}

/// JSON text as it is.
#[derive(Debug)]
struct RawJson<'a>(&'a [u8]);

impl ToSql for RawJson<'_> {
    fn to_sql(&self, _: &Type, out: &mut BytesMut) -> Result<IsNull, Box<dyn Error + Sync + Send>> {
        out.extend_from_slice(self.0);
        Ok(IsNull::No)
    }

    accepts!(JSON);
    to_sql_checked!();
}
