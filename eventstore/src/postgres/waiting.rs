//! Events of parked streams, kept by their reader.

use futures::TryStreamExt;
use tokio_postgres::types::Json;

use super::{
    Database, GenericClient,
    appender::Json as JsonText,
    database_error,
    page::{Names, recorded},
};
use crate::{
    error::Error,
    event::Recorded,
    ids::{Position, StreamId, Version},
};

/// The events of one projection's parked streams, for a projection that cannot read them again from a store: the
/// log is another service's, and Kafka keeps it only for a while.
#[derive(Clone, Debug)]
pub struct WaitingEvents {
    database: Database,
    projection: String,
}

impl WaitingEvents {
    /// Those of a projection, under the name of its checkpoint.
    pub fn of(database: &Database, projection: impl Into<String>) -> Self {
        Self { database: database.clone(), projection: projection.into() }
    }

    /// Keeps events, in the caller's transaction. One that is kept already stays as it is.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn keep(
        &self,
        client: &impl GenericClient,
        events: &[&Recorded],
    ) -> Result<(), Error> {
        if events.is_empty() {
            return Ok(());
        }
        let all = |of: fn(&Recorded) -> i64| events.iter().map(|event| of(event)).collect();
        let positions: Vec<_> = all(|event| event.position.get());
        let versions: Vec<_> = all(|event| event.version.get());
        let schema_versions: Vec<_> = all(|event| i64::from(event.schema_version));
        let categories: Vec<_> = events.iter().map(|event| event.stream.category()).collect();
        let keys: Vec<_> = events.iter().map(|event| event.stream.key()).collect();
        let ids: Vec<_> = events.iter().map(|event| event.id).collect();
        let types: Vec<_> = events.iter().map(|event| &*event.event_type).collect();
        let recorded: Vec<_> = events.iter().map(|event| event.recorded_at).collect();
        let occurred: Vec<_> = events.iter().map(|event| event.occurred_at).collect();
        let payloads: Vec<_> =
            events.iter().map(|event| JsonText(event.event.as_bytes())).collect();
        let metadata: Vec<_> = events.iter().map(|event| Json(&event.metadata)).collect();
        let sql = self.database.schema().sql(
            "insert into {schema}.waiting_events (projection, category, key, position, version, event_id,
                 type, schema_version, recorded_at, occurred_at, payload, metadata)
             select $1, * from unnest($2::text[], $3::text[], $4::bigint[], $5::bigint[], $6::uuid[],
                 $7::text[], $8::bigint[], $9::timestamptz[], $10::timestamptz[], $11::json[], $12::json[])
             on conflict do nothing",
        );
        let failed = |error| database_error("keep events of parked streams", error);
        let statement = client.prepare_cached(&sql).await.map_err(failed)?;
        client
            .execute(
                &statement,
                &[
                    &self.projection,
                    &categories,
                    &keys,
                    &positions,
                    &versions,
                    &ids,
                    &types,
                    &schema_versions,
                    &recorded,
                    &occurred,
                    &payloads,
                    &metadata,
                ],
            )
            .await
            .map(drop)
            .map_err(failed)
    }

    /// The events of a stream behind a version and up to a position, in their order; no more once there are `limit` or
    /// their payloads come to `bytes`. The first is always among them.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn page(
        &self,
        stream: &StreamId,
        after: Version,
        up_to: Position,
        limit: usize,
        bytes: usize,
    ) -> Result<Vec<Recorded>, Error> {
        let sql = self.database.schema().sql(
            "select position, 0::bigint, version, event_id, type, schema_version, recorded_at, occurred_at,
                 payload, metadata
             from {schema}.waiting_events
             where projection = $1 and category = $2 and key = $3 and version > $4 and position <= $5
             order by position limit $6",
        );
        let failed = |error| database_error("read events of a parked stream", error);
        let client = self.database.client().await?;
        let statement = client.prepare_cached(&sql).await.map_err(failed)?;
        let (category, key) = (stream.category(), stream.key());
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        let (after, up_to) = (after.get(), up_to.get());
        let params: [&(dyn tokio_postgres::types::ToSql + Sync); 6] =
            [&self.projection, &category, &key, &after, &up_to, &limit];
        let rows = client.query_raw(&statement, params).await.map_err(failed)?;
        let mut rows = std::pin::pin!(rows);
        let (mut events, mut types, mut read) = (Vec::new(), Names::default(), 0);
        while read < bytes
            && let Some(row) = rows.try_next().await.map_err(failed)?
        {
            let event = recorded(&row, &mut types, stream.clone()).map_err(failed)?;
            read += event.event.as_bytes().len();
            events.push(event);
        }
        Ok(events)
    }

    /// Forgets the events of a stream before a position, in the caller's transaction.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn forget(
        &self,
        client: &impl GenericClient,
        stream: &StreamId,
        before: Position,
    ) -> Result<(), Error> {
        let sql = self.database.schema().sql(
            "delete from {schema}.waiting_events
             where projection = $1 and category = $2 and key = $3 and position < $4",
        );
        let (category, key) = (stream.category(), stream.key());
        client
            .execute(&sql, &[&self.projection, &category, &key, &before.get()])
            .await
            .map(drop)
            .map_err(|error| database_error("forget events of a parked stream", error))
    }
}
