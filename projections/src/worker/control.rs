//! What people ask of a projection while it runs: to pause, to try again what is parked.

use annals_eventstore::{StreamId, postgres::Database};

use crate::error::Error;

/// What a runner has to know, read in one statement.
#[derive(Debug, Default)]
pub(super) struct Wishes {
    /// Why the projection is paused, if it is.
    pub(super) paused: Option<String>,
    /// Whether a worker has said that what it acts on is broken, and nobody that it works again.
    pub(super) broken: bool,
    /// Parked streams that somebody wants to go on.
    pub(super) asked: Vec<(StreamId, Asked)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Asked {
    /// The event that failed is tried again.
    Retry,
    /// It is left out.
    Discard,
}

pub(super) async fn look(database: &Database, name: &str) -> Result<Wishes, Error> {
    let failed =
        |source| Error::Bookkeeping { action: "look whether a projection is paused", source };
    let client = database.client().await?;
    let sql = database.schema().sql(include_str!("../sql/wishes.sql"));
    let statement = client.prepare_cached(&sql).await.map_err(failed)?;
    let mut wishes = Wishes::default();
    for row in client.query(&statement, &[&name]).await.map_err(failed)? {
        wishes.paused = row.get(0);
        wishes.broken = row.get(4);
        let Some(asked) = row.get::<_, Option<&str>>(1) else { continue };
        let asked = if asked == "retry" { Asked::Retry } else { Asked::Discard };
        wishes.asked.push((StreamId::new(row.get::<_, &str>(2), row.get::<_, &str>(3))?, asked));
    }
    Ok(wishes)
}
