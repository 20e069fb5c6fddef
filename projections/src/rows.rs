//! The rows of a read model in memory, and what events make of them. Pure, without I/O.

use std::collections::{HashMap, hash_map::Entry};

use annals_eventstore::{Position, Recorded};

use crate::{
    error::Error,
    read_model::{Change, ReadModel, Source, Step},
};

/// Rows by their keys.
pub(crate) struct Rows<R: ReadModel>(HashMap<R::Key, R>);

/// What events make of some rows. The rows themselves stay as they are until it is merged.
pub(crate) struct Batch<R: ReadModel>(HashMap<R::Key, (Option<R>, Position)>);

/// A row that a batch has changed: what it was, what it is, and by the event at which position.
pub(crate) type Changed<'a, R> = (&'a <R as ReadModel>::Key, Option<R>, Option<&'a R>, Position);

impl<R: ReadModel> Default for Rows<R> {
    fn default() -> Self {
        Self(HashMap::new())
    }
}

impl<R: ReadModel + std::fmt::Debug> std::fmt::Debug for Rows<R> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_set().entries(self.iter()).finish()
    }
}

impl<R: ReadModel> FromIterator<R> for Rows<R> {
    fn from_iter<I: IntoIterator<Item = R>>(rows: I) -> Self {
        Self(rows.into_iter().map(|row| (row.key(), row)).collect())
    }
}

impl<R: ReadModel> Default for Batch<R> {
    fn default() -> Self {
        Self(HashMap::new())
    }
}

impl<R: ReadModel> Rows<R> {
    pub(crate) fn get(&self, key: &R::Key) -> Option<&R> {
        self.0.get(key)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &R> {
        self.0.values()
    }

    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    /// Takes in what a batch makes of the rows, and tells of each that is another now, in the order of
    /// positions.
    pub(crate) fn merge(&mut self, batch: Batch<R>, mut tell: impl FnMut(Changed<'_, R>)) {
        let mut changes: Vec<_> = batch.0.into_iter().collect();
        changes.sort_by_key(|(_, (_, position))| *position);
        for (key, (after, position)) in changes {
            match after {
                Some(row) => {
                    let (before, entry) = match self.0.entry(key) {
                        Entry::Occupied(mut entry) => (Some(entry.insert(row)), entry),
                        Entry::Vacant(entry) => (None, entry.insert_entry(row)),
                    };
                    tell((entry.key(), before, Some(entry.get()), position));
                }
                None => {
                    // One that came and went within the batch was never there.
                    if let Some(before) = self.0.remove(&key) {
                        tell((&key, Some(before), None, position));
                    }
                }
            }
        }
    }
}

impl<R: ReadModel> Batch<R> {
    /// Folds one event into the rows that it touches.
    pub(crate) fn step(&mut self, rows: &Rows<R>, step: &Step<R>) -> Result<(), Error> {
        for key in step.keys.as_slice() {
            let row = match self.0.get(key) {
                Some((row, _)) => row.as_ref(),
                None => rows.get(key),
            };
            let next = match step.project(key, row.cloned()) {
                Change::Keep => continue,
                Change::Delete => None,
                Change::Set(row) if row.key() == *key => Some(row),
                Change::Set(_) => {
                    return Err(Error::WrongKey { projection: R::TABLE, position: step.position });
                }
            };
            self.0.insert(key.clone(), (next, step.position));
        }
        Ok(())
    }
}

/// How the events of each category are folded.
pub(crate) struct Sources<R: ReadModel>(HashMap<&'static str, Source<R>>);

/// What a page of events makes of the rows, up to the first event that cannot be projected.
pub(crate) struct Folded<R: ReadModel> {
    pub(crate) batch: Batch<R>,
    pub(crate) failure: Option<(Position, Error)>,
}

impl<R: ReadModel> Sources<R> {
    pub(crate) fn new() -> Self {
        Self(R::sources().into_iter().map(|source| (source.category(), source)).collect())
    }

    pub(crate) fn categories(&self) -> impl Iterator<Item = &'static str> {
        self.0.keys().copied()
    }

    /// Folds events in their order.
    pub(crate) fn fold(&self, rows: &Rows<R>, events: Vec<Recorded>) -> Result<Folded<R>, Error> {
        let mut batch = Batch::default();
        for event in events {
            let Some(source) = self.0.get(event.stream.category()) else { continue };
            let (stream, version, position) = (event.stream.clone(), event.version, event.position);
            match source.step(event) {
                Ok(steps) => steps.into_iter().try_for_each(|step| batch.step(rows, &step))?,
                Err(source) => {
                    let (projection, source) = (R::TABLE, Box::new(source));
                    let failure = Error::Event { projection, stream, version, position, source };
                    return Ok(Folded { batch, failure: Some((position, failure)) });
                }
            }
        }
        Ok(Folded { batch, failure: None })
    }
}
