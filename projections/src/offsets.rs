//! Where in Kafka the reader of a checkpoint goes on, kept beside the checkpoint.

use std::collections::BTreeMap;

use annals_eventstore::{
    Position,
    postgres::{Database, GenericClient},
};

use crate::{error::Error, fail_points::may_fail};

/// For partitions of topics, the offset of the next record.
pub(crate) type Offsets = BTreeMap<(String, i32), i64>;

/// Where the record of an event is.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct RecordAt {
    pub(crate) topic: String,
    pub(crate) partition: i32,
    pub(crate) offset: i64,
}

/// Offsets that hold once a checkpoint has come to a position: what is before them is at or below it.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Mark {
    pub(crate) position: Position,
    pub(crate) offsets: Offsets,
}

impl Mark {
    /// Writes them in the transaction that moves the checkpoint.
    pub(crate) async fn write(
        &self,
        database: &Database,
        client: &impl GenericClient,
        checkpoint: &str,
    ) -> Result<(), Error> {
        may_fail!("offsets-noting");
        let failed = |source| Error::Bookkeeping { action: "note offsets", source };
        let topics: Vec<_> = self.offsets.keys().map(|(topic, _)| &**topic).collect();
        let partitions: Vec<_> = self.offsets.keys().map(|(_, partition)| *partition).collect();
        let next: Vec<_> = self.offsets.values().copied().collect();
        let sql = database.schema().sql(
            "insert into {schema}.kafka_offsets (checkpoint, topic, partition, next_offset, position)
             select $1, topic, partition, next_offset, $5
             from unnest($2::text[], $3::integer[], $4::bigint[]) given (topic, partition, next_offset)
             on conflict (checkpoint, topic, partition) do update
             set next_offset = excluded.next_offset, position = excluded.position",
        );
        let statement = client.prepare_cached(&sql).await.map_err(failed)?;
        let position = self.position.get();
        client
            .execute(&statement, &[&checkpoint, &topics, &partitions, &next, &position])
            .await
            .map_err(failed)?;
        may_fail!("offsets-noted");
        Ok(())
    }
}

/// The offsets that are of use to a checkpoint where it stands now. One that was written when it stood further on
/// is not: its tables have been reset since, or replaced.
#[cfg(feature = "kafka")]
pub(crate) async fn load(
    database: &Database,
    checkpoint: &str,
    at: Position,
) -> Result<Offsets, Error> {
    let failed = |source| Error::Bookkeeping { action: "look up offsets", source };
    let sql = database.schema().sql(
        "select topic, partition, next_offset from {schema}.kafka_offsets
         where checkpoint = $1 and position <= $2",
    );
    let rows = database.client().await?.query(&sql, &[&checkpoint, &at.get()]).await;
    let rows = rows.map_err(failed)?;
    Ok(rows.iter().map(|row| ((row.get(0), row.get(1)), row.get(2))).collect())
}
