//! The rows of a read model in memory, and what events make of them. Pure, without I/O.

use std::collections::{HashMap, hash_map::Entry};

use annals_eventstore::{Position, Recorded};

use crate::{
    engine::Steps,
    error::EventFailure,
    read_model::{Change, ReadModel, Step},
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
    pub(crate) fn step(&mut self, rows: &Rows<R>, step: &Step<R>) -> Result<(), Box<EventFailure>> {
        for key in step.keys.as_slice() {
            let row = match self.0.get(key) {
                Some((row, _)) => row.as_ref(),
                None => rows.get(key),
            };
            let next = match step.change(key, row.cloned())? {
                Change::Keep => continue,
                Change::Delete => None,
                Change::Set(row) => Some(row),
            };
            self.0.insert(key.clone(), (next, step.position));
        }
        Ok(())
    }
}

type Failure = Box<EventFailure>;

/// What a page of events makes of the rows, up to the first event that cannot be decoded, if there is one.
pub(crate) fn fold<R: ReadModel>(
    steps: &Steps<R>,
    rows: &Rows<R>,
    events: Vec<Recorded>,
) -> Result<(Batch<R>, Option<Failure>), Failure> {
    let (steps, failure) = steps.of(events);
    let mut batch = Batch::default();
    steps.iter().try_for_each(|step| batch.step(rows, step))?;
    Ok((batch, failure))
}
