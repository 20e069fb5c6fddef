//! Where a publisher begins.

use super::progress_record::{LastEvent, ProgressRecord};
use crate::{
    error::Error,
    ids::Position,
    postgres::{Database, database_error},
};

/// Where the log goes on that is to be published, by what Kafka and the database say.
#[derive(Debug, PartialEq)]
pub(super) struct Start {
    /// Every event up to here is in the topics.
    pub(super) position: Position,
    /// The last event that is known to be.
    pub(super) event: Option<LastEvent>,
    /// Whether the progress topic says so, too.
    pub(super) told: Told,
}

/// What consumers know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Told {
    /// As much as the publisher.
    All,
    /// Less: it has to be said how far all partitions go.
    Less,
}

impl Start {
    /// The further of both. Published exactly once, that is Kafka's, and the database's follows; published at
    /// least once, it is the other way round; after a change between the two, or where the topic was
    /// deleted, either.
    pub(super) fn of(told: Option<ProgressRecord>, checkpoint: Position) -> Self {
        match told {
            Some(record) if record.position >= checkpoint => {
                Self { position: record.position, event: record.event, told: Told::All }
            }
            Some(record) => Self { position: checkpoint, event: record.event, told: Told::Less },
            None if checkpoint == Position::START => {
                Self { position: checkpoint, event: None, told: Told::All }
            }
            None => Self { position: checkpoint, event: None, told: Told::Less },
        }
    }

    /// Makes sure that the log is the one that was published.
    ///
    /// The positions alone do not say so: after a crash the counter may stand below a gap that was passed,
    /// and a log that was restored and written to may be further than the one that was published.
    pub(super) async fn check_log(&self, database: &Database, key: &str) -> Result<(), Error> {
        let Some(event) = self.event else { return Ok(()) };
        let failed = |error| database_error("look for the last published event", error);
        let sql = database.schema().sql(
            "select event_id from {schema}.events where position = $1
             union all select event_id from {schema}.archived_events where position = $1",
        );
        let client = database.client().await?;
        let row = client.query_opt(&sql, &[&event.position.get()]).await.map_err(failed)?;
        if row.is_some_and(|row| row.get::<_, uuid::Uuid>(0) == event.id) {
            return Ok(());
        }
        Err(Error::PublishedElsewhere {
            store: key.to_owned(),
            published: self.position,
            event: event.id,
            position: event.position,
        })
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    #[test]
    fn the_further_of_both_counts() {
        let event = Some(LastEvent::new(Position::new(7), Uuid::from_u128(7)));
        let mut record = ProgressRecord::new(Position::new(9));
        record.event = event;
        let start = |record: &Option<ProgressRecord>, checkpoint| {
            let Start { position, event, told } =
                Start::of(record.clone(), Position::new(checkpoint));
            (position.get(), event, told)
        };
        let record = Some(record);
        assert_eq!(start(&None, 0), (0, None, Told::All));
        assert_eq!(start(&None, 5), (5, None, Told::Less));
        assert_eq!(start(&record, 0), (9, event, Told::All));
        assert_eq!(start(&record, 9), (9, event, Told::All));
        assert_eq!(start(&record, 10), (10, event, Told::Less));
    }
}
