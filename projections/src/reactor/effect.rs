//! What tells one effect from another, however often it is tried.

use annals_eventstore::{Position, Recorded};
use uuid::Uuid;

/// The namespace of the namespaces of reactors. Never change it: all ids would be others.
const NAMESPACE: Uuid = Uuid::from_u128(0x9c1e_5a0d_7b43_4f0e_a2d6_3f58_c07b_91e4);

/// A reaction of one reactor to one event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Effect {
    /// The same on every attempt and in every process, and another for every other reactor and event: a key under
    /// which whoever is called can tell a repetition. It is a UUID of version 5.
    pub id: Uuid,
    /// Which attempt this is: 1, 2, 3. Attempts before a crash of the worker may not be among those counted.
    pub attempt: u32,
    /// The event's position.
    pub position: Position,
}

impl Effect {
    /// The first attempt of the reactor with this name on this event: what tests need.
    pub fn of<E>(reactor: &str, event: &Recorded<E>) -> Self {
        Self { id: id(reactor, event.id, 0), attempt: 1, position: event.position }
    }

    /// The same effect, at another attempt.
    #[must_use]
    pub fn attempt(self, attempt: u32) -> Self {
        Self { attempt, ..self }
    }
}

/// The id of the effect of a part of a stored event. The first part has the id that the event has where it is
/// not split, so that splitting its type does not repeat that effect.
pub(super) fn id(reactor: &str, event: Uuid, part: u32) -> Uuid {
    let namespace = Uuid::new_v5(&NAMESPACE, reactor.as_bytes());
    let first = Uuid::new_v5(&namespace, event.as_bytes());
    match part {
        0 => first,
        part => Uuid::new_v5(&first, &part.to_be_bytes()),
    }
}
