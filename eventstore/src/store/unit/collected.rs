//! What a unit of work has collected: pure, between what it loads and the one append at its end.

use std::{
    any::{Any, TypeId},
    collections::HashMap,
};

use crate::{
    aggregate::{Aggregate, Loaded},
    append::{Append, ExpectedVersion, NewEvent},
    backend::{KeyRecord, Request},
    command::Fingerprint,
    error::Error,
    ids::{StreamId, Version},
    store::check::{Check, SoFar},
};

/// The streams that a unit has touched, what it appends to them, and the aggregates it has loaded.
#[derive(Default)]
pub(super) struct Collected {
    streams: Vec<Touched>,
    index: HashMap<StreamId, usize>,
    events: Vec<(usize, NewEvent)>,
    pub(super) keys: Vec<KeyRecord>,
    states: HashMap<(TypeId, usize), Box<dyn Any + Send + Sync>>,
    pub(super) so_far: SoFar,
}

#[derive(Clone)]
struct Touched {
    stream: StreamId,
    /// What it must be at before the unit.
    expected: ExpectedVersion,
    /// How many events it gets from the unit.
    own: usize,
}

/// An aggregate as the unit sees it.
struct State<A> {
    loaded: Loaded<A>,
    /// How many of the unit's own events are in it.
    folded: usize,
}

impl Touched {
    /// What is to be expected before the unit if, where the unit stands, this is.
    fn also(&self, expected: ExpectedVersion) -> Result<ExpectedVersion, Error> {
        use ExpectedVersion as E;
        let own = self.own as i64;
        let before = match (self.expected, expected) {
            (before, E::Any) => Some(before),
            (E::NoStream, _) if expected.accepts(Version::new(own)) => Some(E::NoStream),
            (E::Exact(before), _) if expected.accepts(before.plus(self.own)) => {
                Some(E::Exact(before))
            }
            (E::NoStream | E::Exact(_), _) => None,
            (E::Any, E::Exact(version)) if version.get() >= own => {
                Some(E::Exact(Version::new(version.get() - own)))
            }
            (E::Exists, E::Exact(version)) if version.get() > own => {
                Some(E::Exact(Version::new(version.get() - own)))
            }
            (E::Any, E::NoStream) if own == 0 => Some(E::NoStream),
            (E::Any, E::Exists) if own > 0 => Some(E::Any),
            (E::Any | E::Exists, E::Exists) => Some(E::Exists),
            (E::Any | E::Exists, E::Exact(_) | E::NoStream) => None,
        };
        before.ok_or_else(|| {
            let least = match self.expected {
                E::Exact(version) => version,
                E::Exists => Version::new(1),
                E::Any | E::NoStream => Version::NONE,
            };
            Error::Conflict { stream: self.stream.clone(), expected, actual: least.plus(self.own) }
        })
    }
}

impl Collected {
    pub(super) fn is_untouched(&self) -> bool {
        self.streams.is_empty()
    }

    pub(super) fn index(&self, stream: &StreamId) -> Option<usize> {
        self.index.get(stream).copied()
    }

    fn touch(&mut self, stream: &StreamId) -> usize {
        if let Some(index) = self.index(stream) {
            return index;
        }
        let touched = Touched { stream: stream.clone(), expected: ExpectedVersion::Any, own: 0 };
        self.streams.push(touched);
        self.index.insert(stream.clone(), self.streams.len() - 1);
        self.streams.len() - 1
    }

    /// How many events there are, and how many of them the stream has.
    pub(super) fn counts(&self, index: usize) -> (usize, usize) {
        (self.events.len(), self.streams[index].own)
    }

    pub(super) fn is_loaded<A: Aggregate>(&self, index: usize) -> bool {
        self.states.contains_key(&(TypeId::of::<A>(), index))
    }

    /// Takes in an aggregate as it is recorded. From now on the unit rests on its version.
    pub(super) fn insert<A: Aggregate>(
        &mut self,
        stream: &StreamId,
        loaded: Loaded<A>,
    ) -> Result<usize, Error> {
        let index = self.touch(stream);
        let touched = &mut self.streams[index];
        if !touched.expected.accepts(loaded.version) {
            return Err(Error::Conflict {
                stream: stream.clone(),
                expected: touched.expected,
                actual: loaded.version,
            });
        }
        touched.expected = ExpectedVersion::Exact(loaded.version);
        let state = State { loaded, folded: 0 };
        self.states.insert((TypeId::of::<A>(), index), Box::new(state));
        Ok(index)
    }

    /// A loaded aggregate, with the unit's own events in it.
    pub(super) fn state<A: Aggregate>(
        &mut self,
        index: usize,
    ) -> Result<Option<&mut Loaded<A>>, Error> {
        let Some(state) = self.states.get_mut(&(TypeId::of::<A>(), index)) else {
            return Ok(None);
        };
        let Some(state) = state.downcast_mut::<State<A>>() else { return Ok(None) };
        let touched = &self.streams[index];
        if state.folded < touched.own {
            let own = self.events.iter().filter(|(stream, _)| *stream == index);
            for (_, event) in own.skip(state.folded) {
                let version = state.loaded.version.plus(1);
                let events = event.provisional(&touched.stream, version).decode::<A::Event>()?;
                for event in events {
                    state.loaded.state.apply(&event.event);
                }
                state.loaded.version = version;
                state.folded += 1;
            }
        }
        Ok(Some(&mut state.loaded))
    }

    /// Adds what an aggregate decided, all or nothing.
    pub(super) fn add<A: Aggregate>(
        &mut self,
        index: usize,
        decided: &[A::Event],
        new: Vec<NewEvent>,
        checked: SoFar,
    ) {
        self.so_far = checked;
        self.streams[index].own += new.len();
        self.events.extend(new.into_iter().map(|event| (index, event)));
        let state = self.states.get_mut(&(TypeId::of::<A>(), index));
        if let Some(state) = state.and_then(|state| state.downcast_mut::<State<A>>()) {
            decided.iter().for_each(|event| state.loaded.state.apply(event));
            state.loaded.version = state.loaded.version.plus(decided.len());
            state.folded += decided.len();
        }
    }

    /// Adds the events of an append, all or nothing.
    pub(super) fn append(
        &mut self,
        append: Append,
        mut check: Check<'_>,
        fingerprint: Option<(String, Fingerprint)>,
    ) -> Result<(), Error> {
        let Append { streams, mut events, .. } = append;
        for (_, event) in &mut events {
            check.event(event)?;
        }
        let also = |(stream, expected): &(StreamId, ExpectedVersion)| match self.index(stream) {
            Some(index) => self.streams[index].also(*expected),
            None => Ok(*expected),
        };
        let expected = streams.iter().map(also).collect::<Result<Vec<_>, _>>()?;
        self.so_far = check.so_far();
        let added = events.len();
        let indexes: Vec<_> = streams.iter().map(|(stream, _)| self.touch(stream)).collect();
        for (index, expected) in indexes.iter().zip(expected) {
            self.streams[*index].expected = expected;
        }
        for (stream, event) in events {
            self.streams[indexes[stream]].own += 1;
            self.events.push((indexes[stream], event));
        }
        if let (Some((key, fingerprint)), Some(first)) = (fingerprint, indexes.first()) {
            self.keys.push(KeyRecord {
                key,
                fingerprint,
                stream: *first,
                number: self.streams[*first].own,
                last: self.events.len(),
                events: added,
            });
        }
        Ok(())
    }

    /// The versions of the streams that got events, when they were at these before.
    pub(super) fn versions(&self, before: &[Version]) -> Vec<(StreamId, Version)> {
        let streams = self.streams.iter().zip(before).filter(|(touched, _)| touched.own > 0);
        streams
            .map(|(touched, before)| (touched.stream.clone(), before.plus(touched.own)))
            .collect()
    }

    /// The one append that all of it comes to.
    pub(super) fn request(&self) -> Request {
        let streams = self.streams.iter();
        Request {
            streams: streams.map(|touched| (touched.stream.clone(), touched.expected)).collect(),
            events: self.events.clone(),
            keys: self.keys.clone(),
        }
    }
}
