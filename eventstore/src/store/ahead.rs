//! Reading ahead: pages that are on their way while one is used.

use std::collections::VecDeque;

use tokio_util::task::AbortOnDropHandle;
use tracing::Instrument;

use super::{
    cursor::{Cursor, Then},
    outcome_of,
};
use crate::{error::Error, event::Recorded};

/// How many pages are on their way at once.
const AHEAD: usize = 2;

/// Where a stream of events stands.
pub(super) enum Reading {
    Start(Cursor),
    Second(Cursor),
    Ahead(Ahead),
}

impl Reading {
    pub(super) async fn next(self) -> Result<Option<(Vec<Recorded>, Self)>, Error> {
        match self {
            Self::Start(mut cursor) => {
                cursor.end_here().await?;
                let Step { events, rest, .. } = step(cursor).await?;
                Ok(Some((events, rest.map_or_else(Self::end, Self::Second))))
            }
            // Who has come this far reads on, as a rule.
            Self::Second(cursor) => {
                let Step { events, rest, is_dense } = step(cursor).await?;
                let mut ahead = Ahead { rest, ..Ahead::default() };
                ahead.send_for_more(is_dense);
                Ok(Some((events, Self::Ahead(ahead))))
            }
            Self::Ahead(mut ahead) => {
                let events = ahead.next().await?;
                Ok(events.map(|events| (events, Self::Ahead(ahead))))
            }
        }
    }

    fn end() -> Self {
        Self::Ahead(Ahead::default())
    }
}

/// Pages on their way.
#[derive(Default)]
pub(super) struct Ahead {
    /// In their order.
    pages: VecDeque<AbortOnDropHandle<Result<Step, Error>>>,
    /// What comes after them, unless only the last of them will tell.
    rest: Option<Cursor>,
}

/// A page that was read.
struct Step {
    events: Vec<Recorded>,
    /// For the rest of what its cursor was for.
    rest: Option<Cursor>,
    /// The log has few holes there.
    is_dense: bool,
}

impl Ahead {
    async fn next(&mut self) -> Result<Option<Vec<Recorded>>, Error> {
        let Some(page) = self.pages.pop_front() else { return Ok(None) };
        let Step { events, rest, is_dense } = outcome_of(page.await)?;
        // Of a page that was cut off nothing is left: the rest is the one that is here already.
        self.rest = rest.or(self.rest.take());
        self.send_for_more(is_dense);
        Ok(Some(events))
    }

    fn send_for_more(&mut self, is_dense: bool) {
        while self.pages.len() < AHEAD
            && let Some(mut cursor) = self.rest.take()
        {
            let next = if is_dense { cursor.cut_off() } else { None };
            match next {
                Some(next) => {
                    self.pages.push_back(spawn(next));
                    self.rest = Some(cursor);
                }
                None if self.pages.is_empty() => self.pages.push_back(spawn(cursor)),
                None => {
                    self.rest = Some(cursor);
                    return;
                }
            }
        }
    }
}

fn spawn(cursor: Cursor) -> AbortOnDropHandle<Result<Step, Error>> {
    AbortOnDropHandle::new(tokio::spawn(step(cursor).in_current_span()))
}

async fn step(mut cursor: Cursor) -> Result<Step, Error> {
    let before = cursor.position();
    let (events, then) = cursor.step().await?;
    let passed = cursor.position().get().abs_diff(before.get());
    let is_dense = passed <= 2 * events.len() as u64;
    Ok(Step { events, rest: (then == Then::More).then_some(cursor), is_dense })
}

#[cfg(test)]
mod tests;
