//! Following the log with tables that are filled, batch by batch, as a worker does.

use std::time::Duration;

use annals_eventstore::{Position, postgres::Checkpoint};

use super::{
    place::Place,
    progress::{Phase, Reporter},
};
use crate::{
    engine::Engine,
    error::Error,
    page::{Page, Pages},
    read_model::ReadModel,
    target::{Batch, Target},
};

const BATCH: usize = 2000;
const PATIENCE: Duration = Duration::from_secs(5);

/// Brings the tables to a position, or to the end of the log as it is by then. Returns how many events that
/// were.
pub(super) async fn follow<R: ReadModel>(
    place: &Place<R>,
    checkpoint: &mut Checkpoint,
    up_to: Option<Position>,
    reporter: &Reporter,
) -> Result<u64, Error> {
    reporter.phase(Phase::Following);
    let mut engine = Engine::<R>::new(&place.database, PATIENCE).in_schema(&place.next);
    let mut parked = place.parked().await?;
    let pages = Pages::of(&place.store, &place.categories);
    let mut events = 0;
    let mut end = up_to.unwrap_or_default();
    loop {
        if checkpoint.position() >= end {
            let safe = place.store.safe_position().await?;
            match up_to {
                Some(up_to) if checkpoint.position() >= up_to => return Ok(events),
                // The log is behind the position; it will come to it, or somebody asked for too much.
                Some(_) => tokio::time::sleep(Duration::from_millis(3)).await,
                None if checkpoint.position() >= safe => return Ok(events),
                None => {}
            }
            end = up_to.map_or(safe, |up_to| up_to.min(safe));
            if end <= checkpoint.position() {
                continue;
            }
        }
        let after = checkpoint.position();
        let Page { events: mut page, to } = pages.next(after, end, BATCH).await?;
        page.retain(|event| {
            parked.get(&event.stream).is_none_or(|at| event.position < at.position)
        });
        let count = page.len();
        match engine.apply(Batch::new(page, to, to < end), checkpoint).await {
            Ok(()) => {
                events += count as u64;
                reporter.moved(count, to, end);
            }
            Err(Error::Event(failure)) => {
                place.park(&mut parked, failure).await?;
                engine.forget();
            }
            Err(error) => return Err(error),
        }
    }
}
