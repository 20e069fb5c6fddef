//! An aggregate that a command line knows, whatever its type.

use std::{any::TypeId, pin::Pin};

use super::Failure;
use crate::{
    Aggregate, AsOf, Error, Event, EventStore, Payload, Position, Recorded, Shown, Version,
    verify::Verify,
};

/// What can be done with an aggregate of the program.
#[derive(Clone, Copy, Debug)]
pub(super) struct Known {
    id: TypeId,
    pub(super) category: &'static str,
    /// The name of its type.
    pub(super) name: &'static str,
    /// The type of its events, and its name. Aggregates of one category may share it.
    pub(super) events: (TypeId, &'static str),
    /// Adds it to a verification.
    pub(super) verify: fn(Verify) -> Verify,
    /// Says what a stored event is read as.
    pub(super) read: fn(&Recorded) -> Result<Vec<ReadEvent>, Failure>,
    /// Loads one by its key, as it is or as it was.
    pub(super) load: fn(EventStore, String, Option<AsOf>) -> Loading,
}

/// An event as the code would store it today.
#[derive(Clone, Debug)]
pub(super) struct ReadEvent {
    pub(super) event_type: &'static str,
    pub(super) schema_version: u32,
    pub(super) payload: Payload,
}

/// A state on its way.
pub(super) type Loading = Pin<Box<dyn Future<Output = Result<Option<State>, Error>> + Send>>;

/// A state, and how far it is folded.
#[derive(Debug)]
pub(super) struct State {
    pub(super) version: Version,
    pub(super) position: Position,
    pub(super) shown: serde_json::Result<Shown>,
}

impl Known {
    pub(super) fn of<A: Aggregate>() -> Self {
        Self {
            id: TypeId::of::<A>(),
            category: A::CATEGORY,
            name: name_of::<A>(),
            events: (TypeId::of::<A::Event>(), name_of::<A::Event>()),
            verify: Verify::aggregate::<A>,
            read: read::<A>,
            load: load::<A>,
        }
    }

    pub(super) fn is_same(&self, other: &Self) -> bool {
        self.id == other.id
    }
}

/// The name of a type without the path to it.
fn name_of<T>() -> &'static str {
    let name = std::any::type_name::<T>();
    let path = name.find('<').map_or(name, |generics| &name[..generics]);
    &name[path.rfind("::").map_or(0, |at| at + 2)..]
}

fn read<A: Aggregate>(stored: &Recorded) -> Result<Vec<ReadEvent>, Failure> {
    let events = stored.clone().decode::<A::Event>()?.into_iter();
    let read = |event: Recorded<A::Event>| {
        let kind = event.event.event_type();
        let payload = event.event.encode()?;
        Ok(ReadEvent { event_type: kind.name, schema_version: kind.version, payload })
    };
    events.map(read).collect()
}

fn load<A: Aggregate>(store: EventStore, key: String, as_of: Option<AsOf>) -> Loading {
    Box::pin(async move {
        let loaded = match as_of {
            Some(moment) => store.load_as_of::<A>(&key, moment).await?,
            None => store.load_archived::<A>(&key).await?,
        };
        Ok(loaded.map(|loaded| State {
            version: loaded.version,
            position: loaded.position,
            shown: loaded.state.shown(),
        }))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_type_is_named_without_its_path() {
        assert_eq!(name_of::<State>(), "State");
        assert_eq!(name_of::<Option<State>>(), "Option<annals::cli::aggregate::State>");
        assert_eq!(name_of::<i64>(), "i64");
    }
}
