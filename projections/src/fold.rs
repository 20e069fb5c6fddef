//! Folding a batch of events into the rows that it touches. Pure, without I/O.

use std::collections::HashMap;

use annals_eventstore::Position;

use crate::{
    error::EventFailure,
    read_model::{Change, History, ReadModel, Step},
};

/// A row, and the position from which on it has been as it is.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Held<R> {
    pub(crate) row: R,
    pub(crate) since: Position,
}

/// A row as it was over a range of positions: from the first up to before the second.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Past<R> {
    pub(crate) row: R,
    pub(crate) from: Position,
    pub(crate) to: Position,
}

/// Rows on their way through one batch of events or several, since they were last written.
#[derive(Debug)]
pub(crate) struct Folding<R: ReadModel> {
    rows: HashMap<R::Key, Folded<R>>,
    /// What rows were before they changed, if history is kept.
    pub(crate) past: Vec<Past<R>>,
}

#[derive(Debug)]
struct Folded<R> {
    held: Option<Held<R>>,
    /// Whether the database has a row under this key.
    stored: bool,
    changed: bool,
}

/// There is no row, here or in the database.
impl<R> Default for Folded<R> {
    fn default() -> Self {
        Self { held: None, stored: false, changed: false }
    }
}

impl<R: ReadModel> Default for Folding<R> {
    fn default() -> Self {
        Self { rows: HashMap::new(), past: Vec::new() }
    }
}

impl<R: ReadModel> Folding<R> {
    /// Whether the row under this key, or that there is none, is known.
    pub(crate) fn knows(&self, key: &R::Key) -> bool {
        self.rows.contains_key(key)
    }

    /// How many rows are known.
    pub(crate) fn len(&self) -> usize {
        self.rows.len()
    }

    /// Takes note of what the database has under a key.
    pub(crate) fn stored(&mut self, key: R::Key, held: Option<Held<R>>) {
        self.rows.insert(key, Folded { stored: held.is_some(), held, changed: false });
    }

    /// Folds events, in order. A row that is not known is taken for one that does not exist.
    ///
    /// After a failure, what the rows are is nothing to build on.
    pub(crate) fn fold(&mut self, steps: &[Step<R>]) -> Result<(), Box<EventFailure>> {
        for step in steps {
            for key in step.keys.as_slice() {
                let row = match self.rows.get_mut(key) {
                    Some(row) => row,
                    None => self.rows.entry(key.clone()).or_default(),
                };
                row.step(key, step, &mut self.past)?;
            }
        }
        Ok(())
    }

    /// What is to be written, but for the past.
    pub(crate) fn changes(&self) -> Changes<'_, R> {
        let mut changes = Changes { new: Vec::new(), changed: Vec::new(), gone: Vec::new() };
        for (key, folded) in self.rows.iter().filter(|(_, folded)| folded.changed) {
            match &folded.held {
                Some(held) if folded.stored => changes.changed.push(held),
                Some(held) => changes.new.push(held),
                None if folded.stored => changes.gone.push(key.clone()),
                None => {}
            }
        }
        changes
    }

    /// Takes note that all is written. The rows stay known.
    pub(crate) fn written(&mut self) {
        self.past.clear();
        for folded in self.rows.values_mut() {
            folded.stored = folded.held.is_some();
            folded.changed = false;
        }
    }
}

/// What the rows of the database have to become.
#[derive(Debug)]
pub(crate) struct Changes<'a, R: ReadModel> {
    pub(crate) new: Vec<&'a Held<R>>,
    pub(crate) changed: Vec<&'a Held<R>>,
    pub(crate) gone: Vec<R::Key>,
}

impl<R: ReadModel> Folded<R> {
    fn step(
        &mut self,
        key: &R::Key,
        step: &Step<R>,
        past: &mut Vec<Past<R>>,
    ) -> Result<(), Box<EventFailure>> {
        let before = self.held.as_ref().map(|held| held.row.clone());
        let next = match step.change(key, before)? {
            Change::Keep => return Ok(()),
            Change::Delete => None,
            Change::Set(row) => Some(row),
        };
        self.changed = true;
        let at = step.position;
        let next = next.map(|row| Held { row, since: at });
        match std::mem::replace(&mut self.held, next) {
            // Between the parts of one stored event there is no moment at which a row held.
            Some(Held { row, since }) if R::HISTORY == History::Kept && since < at => {
                past.push(Past { row, from: since, to: at });
            }
            _ => {}
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
