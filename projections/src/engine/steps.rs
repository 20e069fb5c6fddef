//! From stored events to steps: decoded, and with the rows that they touch. Pure, without I/O.

use annals_eventstore::{Decoded, Recorded};

use crate::{
    error::{Error, EventFailure},
    guard::guarded,
    read_model::{ReadModel, Source, Step},
};

pub(crate) struct Steps<R: ReadModel> {
    /// They are few.
    sources: Vec<Source<R>>,
}

impl<R: ReadModel> Steps<R> {
    pub(crate) fn new() -> Self {
        Self { sources: R::sources() }
    }

    /// Decodes one event: a step, several or none.
    pub(crate) fn step(
        &self,
        event: Recorded,
    ) -> Result<Option<Decoded<Step<R>>>, Box<EventFailure>> {
        let category = event.stream.category();
        let Some(source) = self.sources.iter().rfind(|source| source.category() == category) else {
            return Ok(None);
        };
        let (stream, version, position) = (event.stream.clone(), event.version, event.position);
        guarded(|| source.step(event)).map(Some).map_err(|source| {
            let projection = R::TABLE.to_owned();
            Box::new(EventFailure { projection, stream, version, position, source })
        })
    }

    /// Decodes the events, up to the first that cannot be projected, if there is one.
    pub(crate) fn of(&self, events: Vec<Recorded>) -> (Vec<Step<R>>, Option<Box<EventFailure>>) {
        let mut steps = Vec::with_capacity(events.len());
        for event in events {
            match self.step(event) {
                Ok(of_event) => steps.extend(of_event.into_iter().flatten()),
                Err(failure) => return (steps, Some(failure)),
            }
        }
        (steps, None)
    }

    pub(crate) fn all(&self, events: Vec<Recorded>) -> Result<Vec<Step<R>>, Error> {
        match self.of(events) {
            (steps, None) => Ok(steps),
            (_, Some(failure)) => Err(failure.into()),
        }
    }
}
