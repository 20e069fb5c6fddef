//! From stored events to steps: decoded, and with the rows that they touch. Pure, without I/O.

use std::collections::HashMap;

use annals_eventstore::Recorded;

use crate::{
    error::{Error, EventFailure},
    guard::guarded,
    read_model::{ReadModel, Source, Step},
};

pub(crate) struct Steps<R: ReadModel> {
    sources: HashMap<&'static str, Source<R>>,
}

impl<R: ReadModel> Steps<R> {
    pub(crate) fn new() -> Self {
        let sources = R::sources().into_iter().map(|source| (source.category(), source)).collect();
        Self { sources }
    }

    /// Decodes the events, up to the first that cannot be projected, if there is one.
    pub(crate) fn of(&self, events: Vec<Recorded>) -> (Vec<Step<R>>, Option<Box<EventFailure>>) {
        let mut steps = Vec::with_capacity(events.len());
        for event in events {
            let Some(source) = self.sources.get(event.stream.category()) else { continue };
            let (stream, version, position) = (event.stream.clone(), event.version, event.position);
            match guarded(|| source.step(event)) {
                Ok(of_event) => steps.extend(of_event),
                Err(source) => {
                    let projection = R::TABLE.to_owned();
                    let failure = EventFailure { projection, stream, version, position, source };
                    return (steps, Some(Box::new(failure)));
                }
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
