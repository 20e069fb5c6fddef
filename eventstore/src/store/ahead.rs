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
                let mut ahead = Ahead::default();
                let events = ahead.take(step(cursor).await?);
                Ok(Some((events, Self::Ahead(ahead))))
            }
            Self::Ahead(mut ahead) => match ahead.pages.pop_front() {
                Some(page) => {
                    let events = ahead.take(outcome_of(page.await)?);
                    Ok(Some((events, Self::Ahead(ahead))))
                }
                None => Ok(None),
            },
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
    /// Takes in a page, and sends for the next ones.
    fn take(&mut self, step: Step) -> Vec<Recorded> {
        // Of one that was cut off there is none.
        if step.rest.is_some() {
            self.rest = step.rest;
        }
        while self.pages.len() < AHEAD
            && let Some(mut cursor) = self.rest.take()
        {
            let next = match step.is_dense {
                true => cursor.cut_off(),
                false => None,
            };
            match next {
                Some(next) => {
                    self.pages.push_back(spawn(next));
                    self.rest = Some(cursor);
                }
                None if self.pages.is_empty() => self.pages.push_back(spawn(cursor)),
                None => {
                    self.rest = Some(cursor);
                    break;
                }
            }
        }
        step.events
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
