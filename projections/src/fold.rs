//! Folding a batch of events into the rows that it touches. Pure, without I/O.

use std::collections::HashMap;

use annals_eventstore::Position;

use crate::{
    error::Error,
    read_model::{Change, History, ReadModel, Step},
    table::FOREVER,
};

/// What a batch changes: the rows as they are after it, and the versions that they went through.
#[derive(Debug)]
pub(crate) struct Changes<R: ReadModel> {
    pub(crate) set: Vec<R>,
    pub(crate) deleted: Vec<R::Key>,
    /// Versions from before the batch that ended in it, and at which position.
    pub(crate) closed: Vec<(R::Key, i64)>,
    /// Versions that began in the batch, each with the range of positions in which it held.
    pub(crate) versions: Vec<(R, i64, i64)>,
}

/// Folds the events, in order, into the rows as they were before them.
pub(crate) fn fold<R: ReadModel>(
    steps: &[Step<R>],
    rows: HashMap<R::Key, R>,
) -> Result<Changes<R>, Error> {
    let mut folds: HashMap<R::Key, Fold<R>> =
        rows.into_iter().map(|(key, row)| (key, Fold::before(Some(row)))).collect();
    let mut versions = Vec::new();
    for step in steps {
        for key in step.keys.as_slice() {
            if !folds.contains_key(key) {
                folds.insert(key.clone(), Fold::before(None));
            }
            if let Some(fold) = folds.get_mut(key) {
                fold.step(key, step, &mut versions)?;
            }
        }
    }
    Ok(Changes::of(folds, versions))
}

/// One row on its way through a batch.
struct Fold<R> {
    row: Option<R>,
    existed: bool,
    changed: bool,
    /// Where the present version began, if in this batch.
    since: Option<Position>,
    /// Where the version from before the batch ended.
    closed: Option<Position>,
}

impl<R: ReadModel> Fold<R> {
    fn before(row: Option<R>) -> Self {
        Self { existed: row.is_some(), row, changed: false, since: None, closed: None }
    }

    fn step(
        &mut self,
        key: &R::Key,
        step: &Step<R>,
        versions: &mut Vec<(R, i64, i64)>,
    ) -> Result<(), Error> {
        let next = match step.project(key, self.row.clone()) {
            Change::Keep => return Ok(()),
            Change::Delete => None,
            Change::Set(row) if row.key() == *key => Some(row),
            Change::Set(_) => {
                return Err(Error::WrongKey { projection: R::TABLE, position: step.position });
            }
        };
        if let Some(row) = std::mem::replace(&mut self.row, next) {
            match self.since {
                // Between the parts of one stored event there is no moment at which it held.
                Some(since) if since == step.position => {}
                // Only a read model with history looks at versions; the others need none.
                Some(since) if R::HISTORY == History::Kept => {
                    versions.push((row, since.get(), step.position.get()));
                }
                Some(_) => {}
                None => self.closed = Some(step.position),
            }
        }
        self.since = self.row.is_some().then_some(step.position);
        self.changed = true;
        Ok(())
    }
}

impl<R: ReadModel> Changes<R> {
    fn of(folds: HashMap<R::Key, Fold<R>>, versions: Vec<(R, i64, i64)>) -> Self {
        let mut changes =
            Self { set: Vec::new(), deleted: Vec::new(), closed: Vec::new(), versions };
        for (key, fold) in folds.into_iter().filter(|(_, fold)| fold.changed) {
            if let Some(at) = fold.closed {
                changes.closed.push((key.clone(), at.get()));
            }
            match fold.row {
                Some(row) => {
                    if let (History::Kept, Some(since)) = (R::HISTORY, fold.since) {
                        changes.versions.push((row.clone(), since.get(), FOREVER));
                    }
                    changes.set.push(row);
                }
                None if fold.existed => changes.deleted.push(key),
                None => {}
            }
        }
        changes
    }
}

#[cfg(test)]
mod tests;
