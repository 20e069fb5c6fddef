//! Looking after projections that run: how far they are, pausing them, and what is parked.
//!
//! All of it works from any process, also where no worker runs: it only reads and writes what the workers
//! read, and they do what is asked within a second. Read models are named as their tables are; projections in
//! SQL and reactors say their names.
//!
//! ```no_run
//! # use annals_eventstore::EventStore;
//! # async fn run(store: EventStore) -> Result<(), Box<dyn std::error::Error>> {
//! use annals_projections::control;
//!
//! for projection in control::status(&store).await? {
//!     println!("{}: {} events behind", projection.name, projection.behind);
//! }
//! for parked in control::parked(&store, Some("loan_overview")).await? {
//!     println!("{} since position {}: {}", parked.stream, parked.position, parked.reason);
//! }
//! // The code was mended and deployed:
//! control::retry(&store, "loan_overview", None).await?;
//! # Ok(()) }
//! ```

mod parked;
mod status;

use annals_eventstore::{EventStore, postgres::Database};

pub(crate) use self::status::set_fed_by;
pub use self::{
    parked::{ParkedStream, discard, parked, retry},
    status::{FedBy, Kind, ProjectionStatus, SliceStatus, State, status},
};
use crate::error::Error;

/// The names of projections begin with this where they are stored, beside those of other readers.
const PREFIX: &str = "projection:";

pub(crate) fn stored(projection: &str) -> String {
    format!("{PREFIX}{projection}")
}

fn shown(name: &str) -> String {
    name.strip_prefix(PREFIX).unwrap_or(name).to_owned()
}

/// Pauses a projection, for the reason given: its workers finish the batch that they are at, and then
/// wait. Its read model stays as it is and can be queried. Returns false if there is no such projection, or
/// if it runs inline, where it has no worker.
///
/// # Errors
/// If the store is in memory, or the database fails.
pub async fn pause(store: &EventStore, projection: &str, reason: &str) -> Result<bool, Error> {
    set(store.database()?, projection, Some(reason)).await
}

/// Lets a projection that is paused go on. If its circuit breaker is open, it is closed: what failed is tried
/// again at once. Returns false if there is no such projection.
///
/// # Errors
/// If the store is in memory, or the database fails.
pub async fn resume(store: &EventStore, projection: &str) -> Result<bool, Error> {
    set(store.database()?, projection, None).await
}

async fn set(database: &Database, projection: &str, paused: Option<&str>) -> Result<bool, Error> {
    let sql = database.schema().sql(
        "update {schema}.projections set paused = $2, changed_at = clock_timestamp(),
             broken = case when $2::text is not null then broken end,
             broken_until = case when $2::text is not null then broken_until end
         where name = $1
           and not exists (select from {schema}.inline_projections i where i.name = $1)",
    );
    let failed = |source| Error::Bookkeeping { action: "pause or resume a projection", source };
    let client = database.client().await?;
    // PostgreSQL's text holds no NUL.
    let paused = paused.map(|reason| reason.replace('\0', "\u{fffd}"));
    let changed = client.execute(&sql, &[&stored(projection), &paused]).await.map_err(failed)?;
    Ok(changed > 0)
}
