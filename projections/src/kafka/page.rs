//! What a subscription yields.

use std::sync::Arc;

use annals_eventstore::{Decoded, Error, Event, Position, Recorded};

use super::{
    merge::Taken,
    offsets::{Offsets, Resume},
    record::Origin,
    topics::Place,
};

/// The next events, in the order of the log.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Page {
    /// The events, by rising position. There may be none: then others' events were published.
    pub events: Vec<Recorded>,
    /// All events up to here were yielded, in this page or before.
    pub end: Position,
    /// Where to go on once the page has been dealt with.
    pub offsets: Offsets,
    /// Of each event, its partition and its offset.
    origins: Vec<(usize, i64)>,
    places: Arc<[Place]>,
}

impl Page {
    pub(super) fn new(taken: Taken<Recorded>, offsets: Offsets, places: Arc<[Place]>) -> Self {
        let Taken { events, end } = taken;
        let origin = |(lane, entry): (usize, super::merge::Entry<Recorded>)| {
            (entry.event, (lane, entry.offset))
        };
        let (events, origins) = events.into_iter().map(origin).unzip();
        Self { events, end, offsets, origins, places }
    }

    /// Where to go on once the page has been dealt with: to be kept with what was made of it.
    pub fn resume(&self) -> Resume {
        Resume::new(self.end, self.offsets.clone())
    }

    /// Where the record of an event is, by its index in [`events`](Self::events).
    pub fn origin(&self, event: usize) -> Option<Origin> {
        let (lane, offset) = self.origins.get(event).copied()?;
        let Place { topic, partition } = self.places.get(lane)?;
        Some(Origin { topic: topic.clone(), partition: *partition, offset })
    }

    /// The events of a type, of those of its category: an event as what it has become, several or none
    /// where its type was split or dropped.
    ///
    /// # Errors
    /// [`Error::Decode`] names the stream, the version and the type of the event.
    pub fn decode<E: Event>(&self, category: &str) -> Result<Vec<Recorded<E>>, Error> {
        let mut decoded = Vec::with_capacity(self.events.len());
        for event in self.events.iter().filter(|event| event.stream.category() == category) {
            match event.clone().decode::<E>()? {
                Decoded::One(event) => decoded.push(event),
                several => decoded.extend(several),
            }
        }
        Ok(decoded)
    }

    /// A span for what is done with the page.
    pub fn span(&self) -> tracing::Span {
        let (first, last) = (self.events.first(), self.events.last());
        tracing::info_span!(
            "kafka page",
            events = self.events.len(),
            first = first.map(|event| event.position.get()),
            last = last.map(|event| event.position.get()),
            end = self.end.get(),
        )
    }
}
