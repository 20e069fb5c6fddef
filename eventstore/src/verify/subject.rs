//! The aggregates whose events and snapshots a verification looks into.

use std::{any::TypeId, collections::HashMap, marker::PhantomData};

use serde_json::Value;

use crate::{
    aggregate::Aggregate,
    backend::StoredEvent,
    error::{DecodeError, chain},
    event::{Event, Payload},
    snapshot::{SnapshotKind, Snapshots},
};

/// An aggregate, whatever its type.
pub(crate) trait Subject: Send + Sync {
    fn category(&self) -> &'static str;

    /// The type of its events. Aggregates of one category may share it.
    fn events(&self) -> TypeId;

    /// Decodes an event and forgets it.
    fn decode(&self, name: &str, version: u32, payload: &Payload) -> Result<(), DecodeError>;

    /// Which snapshots are its own.
    fn snapshots(&self) -> Option<SnapshotKind>;

    /// A fold of its events that begins at nothing.
    fn begin(&self) -> Box<dyn Fold>;
}

/// A state that is being folded.
pub(crate) trait Fold: Send {
    fn apply(&mut self, event: &StoredEvent) -> Result<(), DecodeError>;

    /// Compares the state with a stored one.
    fn compare(&self, stored: &[u8]) -> Compared;
}

/// How a stored state compares with the fold.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Compared {
    Same,
    /// Why it cannot be read.
    Unreadable(String),
    /// Where it differs first, as a JSON pointer.
    Differs(String),
}

pub(super) struct Typed<A>(PhantomData<fn() -> A>);

impl<A> Typed<A> {
    pub(super) fn new() -> Self {
        Self(PhantomData)
    }
}

impl<A: Aggregate> Subject for Typed<A> {
    fn category(&self) -> &'static str {
        A::CATEGORY
    }

    fn events(&self) -> TypeId {
        TypeId::of::<A::Event>()
    }

    fn decode(&self, name: &str, version: u32, payload: &Payload) -> Result<(), DecodeError> {
        A::Event::decode(name, version, payload).map(drop)
    }

    fn snapshots(&self) -> Option<SnapshotKind> {
        A::SNAPSHOTS.as_ref().map(Snapshots::kind)
    }

    fn begin(&self) -> Box<dyn Fold> {
        Box::new(A::default())
    }
}

impl<A: Aggregate> Fold for A {
    fn apply(&mut self, event: &StoredEvent) -> Result<(), DecodeError> {
        let events = A::Event::decode(&event.event_type, event.schema_version, &event.payload)?;
        for event in events {
            crate::Apply::apply(self, &event);
        }
        Ok(())
    }

    fn compare(&self, stored: &[u8]) -> Compared {
        match A::SNAPSHOTS {
            Some(snapshots) => compare(self, stored, &snapshots)
                .unwrap_or_else(|error| Compared::Unreadable(error.to_string())),
            // It takes none, so none is its own.
            None => Compared::Same,
        }
    }
}

/// How often a state is encoded to see whether it comes out the same.
const ENCODINGS: usize = 16;

/// Both are compared as a load would have them: decoded, and encoded again.
fn compare<A>(folded: &A, stored: &[u8], snapshots: &Snapshots<A>) -> serde_json::Result<Compared> {
    let (encode, decode) = (snapshots.encode, snapshots.decode);
    let again =
        || -> serde_json::Result<Value> { serde_json::from_slice(&encode(&decode(stored)?)?) };
    let folded: Value = serde_json::from_slice(&encode(folded)?)?;
    let stored = again()?;
    let Some(at) = difference(&folded, &stored) else { return Ok(Compared::Same) };
    // A set that is hashed is written in an order that means nothing.
    for _ in 0..ENCODINGS {
        if again()? != stored {
            return Ok(match difference(&sorted(folded), &sorted(stored)) {
                Some(at) => Compared::Differs(at),
                None => Compared::Same,
            });
        }
    }
    Ok(Compared::Differs(at))
}

/// Where two values differ first, as a JSON pointer.
fn difference(left: &Value, right: &Value) -> Option<String> {
    let below = |name: &str, left, right| {
        let name = name.replace('~', "~0").replace('/', "~1");
        difference(left, right).map(|rest| format!("/{name}{rest}"))
    };
    match (left, right) {
        (Value::Object(left), Value::Object(right)) => {
            let only = |one: &str| Some(format!("/{one}"));
            let known = left.iter().find_map(|(name, left)| match right.get(name) {
                Some(right) => below(name, left, right),
                None => only(name),
            });
            known.or_else(|| {
                right.keys().find(|name| !left.contains_key(*name)).and_then(|n| only(n))
            })
        }
        (Value::Array(left), Value::Array(right)) => {
            let mut pairs = left.iter().zip(right).enumerate();
            let known = pairs.find_map(|(index, (l, r))| below(&index.to_string(), l, r));
            let end = left.len().min(right.len());
            known.or_else(|| (left.len() != right.len()).then(|| format!("/{end}")))
        }
        _ => (left != right).then(String::new),
    }
}

/// The same with all arrays in one order.
fn sorted(value: Value) -> Value {
    match value {
        Value::Array(values) => {
            let mut values: Vec<_> = values.into_iter().map(sorted).collect();
            values.sort_by_cached_key(Value::to_string);
            Value::Array(values)
        }
        Value::Object(values) => {
            // By name, so that the text is the same for the same content.
            let mut values: Vec<_> =
                values.into_iter().map(|(name, value)| (name, sorted(value))).collect();
            values.sort_by(|(left, _), (right, _)| left.cmp(right));
            Value::Object(values.into_iter().collect())
        }
        other => other,
    }
}

/// The aggregates that were given, by category.
#[derive(Default)]
pub(crate) struct Subjects(Vec<Box<dyn Subject>>);

impl Subjects {
    pub(super) fn add(&mut self, subject: Box<dyn Subject>) {
        self.0.push(subject);
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &dyn Subject> {
        self.0.iter().map(|subject| &**subject)
    }

    /// What decodes the events of each category: each type of events once.
    pub(crate) fn decoders(&self) -> HashMap<&'static str, Vec<&dyn Subject>> {
        let mut decoders: HashMap<_, Vec<&dyn Subject>> = HashMap::new();
        for subject in self.iter() {
            let known = decoders.entry(subject.category()).or_default();
            if !known.iter().any(|other| other.events() == subject.events()) {
                known.push(subject);
            }
        }
        decoders
    }
}

/// Why an event cannot be decoded by one of these; `None` if all can.
pub(crate) fn undecodable(
    decoders: &[&dyn Subject],
    name: &str,
    version: u32,
    payload: &Payload,
) -> Option<String> {
    let failed = decoders.iter().find_map(|one| one.decode(name, version, payload).err());
    failed.map(|error| chain(&error))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "these are tests")]
mod tests {
    use std::collections::HashSet;

    use serde::{Deserialize, Serialize};
    use serde_json::json;

    use super::*;

    #[derive(Serialize, Deserialize, Default)]
    struct State {
        names: HashSet<String>,
        order: Vec<i64>,
    }

    fn state(names: &[&str], order: &[i64]) -> State {
        State { names: names.iter().map(ToString::to_string).collect(), order: order.to_vec() }
    }

    fn compared(folded: &State, stored: &State) -> Compared {
        let snapshots = Snapshots::<State>::new("State");
        compare(folded, &serde_json::to_vec(stored).unwrap(), &snapshots).unwrap()
    }

    #[test]
    fn the_order_of_a_hashed_set_means_nothing() {
        let names: Vec<_> = (0..20).map(|n| n.to_string()).collect();
        let names: Vec<_> = names.iter().map(String::as_str).collect();
        for count in 0..20 {
            let names = &names[..count];
            assert_eq!(compared(&state(names, &[1, 2]), &state(names, &[1, 2])), Compared::Same);
        }
        let differs = compared(&state(&["a", "b", "c"], &[]), &state(&["a", "b", "d"], &[]));
        assert_eq!(differs, Compared::Differs("/names/2".into()));
    }

    #[test]
    fn the_order_of_a_list_counts() {
        let differs = compared(&state(&[], &[1, 2]), &state(&[], &[2, 1]));
        assert_eq!(differs, Compared::Differs("/order/0".into()));
        let differs = compared(&state(&["a"], &[1, 2]), &state(&["a"], &[1]));
        assert_eq!(differs, Compared::Differs("/order/1".into()));
    }

    #[test]
    fn a_difference_is_named_by_where_it_is() {
        let at = |left, right| difference(&left, &right);
        assert_eq!(at(json!({"a": [1, {"b": 2}]}), json!({"a": [1, {"b": 2}]})), None);
        assert_eq!(at(json!({"a": [1, {"b": 2}]}), json!({"a": [1, {"b": 3}]})).unwrap(), "/a/1/b");
        assert_eq!(at(json!({"a": 1}), json!({"a": 1, "x/y": 1})).unwrap(), "/x/y");
        assert_eq!(at(json!(1), json!(2)).unwrap(), "");
    }
}
