//! Events that failed, put aside among the dead letters of their topic.
//!
//! That an event is to be put aside is noted in the transaction that parks its stream, and forgotten once its record is
//! there. So it is there at least once, whatever is killed when.

use std::time::{Duration, Instant};

use annals_eventstore::{StreamId, postgres::Database};
use tokio::task::JoinSet;
use tracing::warn;

use super::{failure::text, slice::slice_of};
use crate::{
    error::Error,
    kafka::{self, DeadLetters, Failure, FeedError, Origin},
};

/// How long to wait after a failure.
const PAUSE: Duration = Duration::from_secs(1);

/// Puts aside what failed of a slice, in a task of its own.
pub(super) struct Aside {
    database: Database,
    topics: kafka::Source,
    projection: String,
    label: String,
    slice: u16,
    slices: u16,
    working: JoinSet<Result<(), Error>>,
    /// When there is something to put aside, or may be.
    due: Option<Instant>,
}

impl Aside {
    pub(super) fn new(
        database: &Database,
        topics: &kafka::Source,
        (projection, label): (&str, &str),
        (slice, slices): (u16, u16),
    ) -> Self {
        Self {
            database: database.clone(),
            topics: topics.clone(),
            projection: projection.to_owned(),
            label: label.to_owned(),
            slice,
            slices,
            working: JoinSet::new(),
            // What an earlier worker has left.
            due: Some(Instant::now()),
        }
    }

    /// There is something to put aside.
    pub(super) fn is_due(&mut self) {
        self.due = Some(Instant::now());
    }

    /// Goes on with it. Returns whether all is done.
    pub(super) fn go_on(&mut self) -> bool {
        while let Some(ended) = self.working.try_join_next() {
            if let Ok(Err(error)) = ended {
                let (projection, cause) = (&self.label, text(&error));
                warn!(projection, cause, "a dead letter is not written yet");
                self.due = Some(Instant::now() + PAUSE);
            }
        }
        if self.working.is_empty() && self.due.is_some_and(|due| due <= Instant::now()) {
            self.due = None;
            let work = put_aside(
                self.database.clone(),
                self.topics.clone(),
                (self.projection.clone(), self.label.clone()),
                (self.slice, self.slices),
            );
            self.working.spawn(work);
        }
        self.working.is_empty() && self.due.is_none()
    }
}

async fn put_aside(
    database: Database,
    topics: kafka::Source,
    (projection, label): (String, String),
    (slice, slices): (u16, u16),
) -> Result<(), Error> {
    let failed = |source| Error::Bookkeeping { action: "look for dead letters", source };
    let due = database.schema().sql(
        "select category, key, position, reason, attempts, record_topic, record_partition, record_offset
         from {schema}.parked_streams where projection = $1 and record_topic is not null
         order by position",
    );
    let done = database.schema().sql(
        "update {schema}.parked_streams
         set record_topic = null, record_partition = null, record_offset = null
         where projection = $1 and category = $2 and key = $3 and position = $4",
    );
    let rows = database.client().await?.query(&due, &[&projection]).await.map_err(failed)?;
    let mut letters = None;
    for row in rows {
        let (category, key): (&str, &str) = (row.get(0), row.get(1));
        if slice_of(&StreamId::new(category, key)?, slices) != slice {
            continue;
        }
        let letters = match &mut letters {
            Some(letters) => letters,
            None => letters.insert(DeadLetters::new(&topics, &*label)?),
        };
        let origin = Origin {
            topic: row.get::<_, &str>(5).into(),
            partition: row.get(6),
            offset: row.get(7),
        };
        let attempts = row.get::<_, i32>(4).try_into().unwrap_or_default();
        let failure = Failure::new(row.get::<_, &str>(3)).attempts(attempts);
        match letters.copy(&origin, &failure).await {
            Err(FeedError::Lost(lost)) => {
                let cause = text(&lost);
                warn!(
                    projection = label,
                    cause, "a dead letter is not written: its record is gone"
                );
            }
            outcome => outcome?,
        }
        let position: i64 = row.get(2);
        let client = database.client().await?;
        client.execute(&done, &[&projection, &category, &key, &position]).await.map_err(failed)?;
    }
    Ok(())
}
