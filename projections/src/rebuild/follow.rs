//! Following the log with tables that are filled, batch by batch, as a worker does.

use std::time::Duration;

use annals_eventstore::{Position, postgres::Checkpoint};

use super::{place::Place, progress::Phase, throttle::Throttle};
use crate::{
    engine::Engine,
    error::{Error, EventFailure},
    page::Page,
    read_model::ReadModel,
    target::{Batch, Target},
    worker::may_be_of_an_event,
};

const BATCH: usize = 2000;
/// How long whoever takes over waits for one that is paused.
const PATIENCE: Duration = Duration::from_secs(5);

/// Brings the tables close to the end of the log, which moves on. Returns how many events that were.
pub(super) async fn follow<R: ReadModel>(
    place: &Place<R>,
    checkpoint: &mut Checkpoint,
) -> Result<u64, Error> {
    place.reporter.phase(Phase::Following);
    let mut events = 0;
    loop {
        let (before, end) = (checkpoint.position(), place.store.safe_position().await?);
        events += follow_to(place, checkpoint, end, Some(&place.throttle)).await?;
        // What came meanwhile is little then.
        if end.get() - before.get() <= BATCH as i64 {
            return Ok(events);
        }
    }
}

/// Brings the tables to a position that is safe to read.
pub(super) async fn follow_to<R: ReadModel>(
    place: &Place<R>,
    checkpoint: &mut Checkpoint,
    end: Position,
    throttle: Option<&Throttle>,
) -> Result<u64, Error> {
    let mut engine = Engine::<R>::new(&place.database, PATIENCE).in_schema(&place.next);
    let mut parked = place.parked().await?;
    let pages = place.pages();
    let mut events = 0;
    // Up to here, events are taken one by one, to find the one that fails.
    let mut alone_up_to = Position::START;
    while checkpoint.position() < end {
        let after = checkpoint.position();
        let most = throttle.map_or(BATCH, |throttle| throttle.at_once(BATCH));
        let limit = if after < alone_up_to { 1 } else { most };
        let Page { events: mut page, to } = pages.next(after, end, limit).await?;
        page.retain(|event| {
            parked.get(&event.stream).is_none_or(|at| event.position < at.position)
        });
        let count = page.len();
        let place_of = page.first().map(|event| (event.stream.clone(), event.version));
        let error = match engine.apply(Batch::new(page, to, to < end), checkpoint).await {
            Ok(()) => {
                events += count as u64;
                place.reporter.moved(count, to, end);
                if let Some(throttle) = throttle {
                    throttle.took(count).await;
                }
                continue;
            }
            Err(error) => error,
        };
        engine.forget();
        match (error, place_of) {
            (Error::Event(failure), _) => {
                place.park(checkpoint, &mut parked, failure).await?;
            }
            (error, Some(_)) if count > 1 && may_be_of_an_event(&error) => alone_up_to = to,
            (error, Some((stream, version))) if may_be_of_an_event(&error) => {
                let (projection, source) = (R::TABLE.to_owned(), Box::new(error));
                let failure = EventFailure { projection, stream, version, position: to, source };
                place.park(checkpoint, &mut parked, Box::new(failure)).await?;
            }
            (error, _) => return Err(error),
        }
    }
    Ok(events)
}
