//! From a stored event to what a saga decides on it.

use annals_eventstore::{Category, Decoded, Error as StoreError, Recorded};

use super::{Actions, On, Progress, Saga};

/// Where the events of a saga come from: one category, and what the saga decides on its events.
pub struct SagaSource<S: Saga> {
    category: &'static str,
    occurrences: fn(Recorded) -> Result<Decoded<Occurrence<S>>, StoreError>,
}

impl<S: Saga> std::fmt::Debug for SagaSource<S> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SagaSource").field("category", &self.category).finish_non_exhaustive()
    }
}

impl<S: Saga> SagaSource<S> {
    /// The events of an aggregate, or of another category.
    pub fn of<C: Category>() -> Self
    where
        S: On<C::Event>,
    {
        Self { category: C::NAME, occurrences: occurrences::<C, S> }
    }

    /// The category.
    pub fn category(&self) -> &'static str {
        self.category
    }

    pub(super) fn occurrences(
        &self,
        event: Recorded,
    ) -> Result<Decoded<Occurrence<S>>, StoreError> {
        (self.occurrences)(event)
    }
}

type Decide<S> = dyn Fn(&S) -> Actions<S> + Send + Sync;

/// An event that happened, as a saga sees it.
pub(super) struct Occurrence<S: Saga> {
    /// The saga that it concerns, if it concerns one.
    pub(super) key: Option<String>,
    /// What the saga notes of it.
    pub(super) mark: Progress,
    pub(super) id: uuid::Uuid,
    pub(super) decide: Box<Decide<S>>,
}

fn occurrences<C: Category, S: On<C::Event>>(
    event: Recorded,
) -> Result<Decoded<Occurrence<S>>, StoreError> {
    let mut part = 0;
    event.decode::<C::Event>()?.try_map(|event| {
        let occurrence = Occurrence::of(event, part);
        part += 1;
        Ok(occurrence)
    })
}

impl<S: Saga> Occurrence<S> {
    pub(super) fn of<E: Send + Sync + 'static>(event: Recorded<E>, part: u32) -> Self
    where
        S: On<E>,
    {
        let metadata = &event.metadata;
        let mark = Progress::Received {
            category: event.stream.category().to_owned(),
            key: event.stream.key().to_owned(),
            version: event.version,
            part,
            position: event.position,
            correlation_id: Some(
                metadata.correlation_id.clone().unwrap_or_else(|| event.id.to_string()),
            ),
            traceparent: metadata.traceparent.clone(),
        };
        Self {
            key: S::key(&event),
            mark,
            id: event.id,
            decide: Box::new(move |saga| saga.on(&event)),
        }
    }
}
