//! From a stored event to the calls of a reactor.

use std::sync::Arc;

use annals_eventstore::{Category, Decoded, Error as StoreError, Position, Recorded};
use futures::{FutureExt, future::BoxFuture};

use super::{Cause, Effect, React, Reaction, Reactor, effect};

/// Where a reactor's events come from: one category, and how its events are reacted to.
pub struct ReactorSource<R: Reactor> {
    category: &'static str,
    triggers: Arc<Triggers<R>>,
}

type Triggers<R> = dyn Fn(Recorded) -> Result<Decoded<Trigger<R>>, StoreError> + Send + Sync;

impl<R: Reactor> std::fmt::Debug for ReactorSource<R> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ReactorSource").field("category", &self.category).finish_non_exhaustive()
    }
}

impl<R: Reactor> ReactorSource<R> {
    /// The events of an aggregate, or of another category.
    pub fn of<C: Category>() -> Self
    where
        R: React<C::Event>,
    {
        Self { category: C::NAME, triggers: Arc::new(triggers::<C, R>) }
    }

    /// The category.
    pub fn category(&self) -> &'static str {
        self.category
    }

    /// Decodes an event of this category: into one trigger as a rule, and several or none where the type of the
    /// event was split or dropped. The event is dealt with once all of them are, in their order.
    ///
    /// # Errors
    /// If the event does not decode.
    pub fn triggers(&self, event: Recorded) -> Result<Decoded<Trigger<R>>, StoreError> {
        (self.triggers)(event)
    }

    /// The same events for a reactor around this one, which calls it.
    #[cfg(feature = "faults")]
    pub(crate) fn for_one_around<O: Reactor>(
        self,
        around: impl Fn(Arc<Call<R>>) -> Arc<Call<O>> + Send + Sync + 'static,
    ) -> ReactorSource<O> {
        let Self { category, triggers } = self;
        let triggers = move |recorded| {
            triggers(recorded)?.try_map(|Trigger { position, event, part, call }| {
                Ok(Trigger { position, event, part, call: around(call) })
            })
        };
        ReactorSource { category, triggers: Arc::new(triggers) }
    }
}

pub(crate) type Call<R> =
    dyn for<'a> Fn(&'a R, Effect) -> BoxFuture<'a, Result<Reaction, Cause>> + Send + Sync;

/// One decoded event, ready to be reacted to.
pub struct Trigger<R: Reactor> {
    position: Position,
    event: uuid::Uuid,
    part: u32,
    call: Arc<Call<R>>,
}

impl<R: Reactor> std::fmt::Debug for Trigger<R> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut debug = f.debug_struct("Trigger");
        debug.field("position", &self.position).field("part", &self.part).finish_non_exhaustive()
    }
}

impl<R: Reactor> Trigger<R> {
    /// The event's position.
    pub fn position(&self) -> Position {
        self.position
    }

    /// What the reactor with this name is told of its first attempt.
    pub fn effect(&self, reactor: &str) -> Effect {
        let id = effect::id(reactor, self.event, self.part);
        Effect { id, attempt: 1, position: self.position }
    }

    /// Has the reactor react, at this attempt: 1, 2, 3.
    ///
    /// # Errors
    /// Whatever the reaction failed with.
    pub async fn react(&self, reactor: &R, attempt: u32) -> Result<Reaction, Cause> {
        let effect = self.effect(reactor.name()).attempt(attempt);
        (self.call)(reactor, effect).await
    }
}

fn triggers<C: Category, R: React<C::Event>>(
    event: Recorded,
) -> Result<Decoded<Trigger<R>>, StoreError> {
    let mut part = 0;
    event.decode::<C::Event>()?.try_map(|event| {
        let (position, id, event) = (event.position, event.id, Arc::new(event));
        let call: Arc<Call<R>> = Arc::new(move |reactor, effect| {
            let event = event.clone();
            async move { reactor.react(&event, &effect).await }.boxed()
        });
        let trigger = Trigger { position, event: id, part, call };
        part += 1;
        Ok(trigger)
    })
}
