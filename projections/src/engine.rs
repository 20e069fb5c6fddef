//! Runs a row projection over batches of events: loads the rows, folds, writes, moves the checkpoint.

mod rows;
mod steps;

use std::{collections::HashSet, time::Duration};

use annals_eventstore::{
    Position, Recorded, Version,
    postgres::{Checkpoint, Client, Database, Schema},
};
use async_trait::async_trait;
use chrono::DateTime;

pub(crate) use self::{
    rows::{Rows, failed},
    steps::Steps,
};
use crate::{
    error::Error,
    fail_points::may_fail,
    fold::Folding,
    install::install,
    read_model::{ReadModel, Step},
    target::{Batch, Late, Target, enter, open},
};

/// More rows than this are not kept in memory between batches.
const HOT_ROWS: usize = 20_000;

/// Projects events into the rows of a read model.
pub(crate) struct Engine<R: ReadModel> {
    database: Database,
    rows: Rows<R>,
    steps: Steps<R>,
    /// What is known of rows from earlier batches, while there is much to catch up with. It holds as
    /// long as nobody else moves the checkpoint.
    hot: Folding<R>,
    /// Ends a transaction that does not get on, for the sake of the worker's successor.
    patience: Duration,
}

impl<R: ReadModel> Engine<R> {
    /// A worker that is paused in the middle of a transaction keeps the checkpoint locked, and its
    /// successor waiting, until the database ends that transaction after `patience`.
    pub(crate) fn new(database: &Database, patience: Duration) -> Self {
        Self {
            database: database.clone(),
            rows: Rows::of(database.schema(), database.read_models()),
            steps: Steps::new(),
            hot: Folding::default(),
            patience,
        }
    }

    /// The same for tables in another schema.
    pub(crate) fn in_schema(mut self, schema: &Schema) -> Self {
        self.rows = Rows::of(self.database.schema(), schema);
        self
    }

    /// Forgets what it knows of rows, after a failure.
    pub(crate) fn forget(&mut self) {
        self.hot = Folding::default();
    }

    async fn project(
        &mut self,
        steps: &[Step<R>],
        batch: &Batch,
        checkpoint: &mut Checkpoint,
        to: Position,
    ) -> Result<(), Error> {
        let transaction = open(&self.database, self.patience).await?;
        let client = transaction.client()?;
        let mut folding = std::mem::take(&mut self.hot);
        // Both are sent at once. The rows are read behind the checkpoint's lock, and count only if it moved.
        let ready = checkpoint.prepare(client).await?;
        let (entered, loaded) = tokio::join!(
            enter(&self.database, client, (checkpoint, &ready), &batch.beside, to),
            self.rows.load(client, &mut folding, steps),
        );
        entered?;
        loaded?;
        folding.fold(steps)?;
        self.rows.write(client, &folding).await?;
        may_fail!("batch-written");
        transaction.commit().await?;
        may_fail!("batch-committed");
        checkpoint.moved(to);
        if batch.more && folding.len() <= HOT_ROWS {
            folding.written();
            self.hot = folding;
        }
        Ok(())
    }

    /// Hashes of the keys of the rows that events touch, the same in every program. More than `limit`
    /// are not worth the question: then `None`.
    pub(crate) async fn lock_numbers(
        &self,
        client: &Client,
        events: &[Recorded],
        limit: usize,
    ) -> Result<Option<Vec<i32>>, Error> {
        let steps = self.steps.all(events.to_vec())?;
        let keys: HashSet<_> =
            steps.iter().flat_map(|step| step.keys.as_slice()).cloned().collect();
        if keys.len() > limit {
            return Ok(None);
        }
        self.rows.lock_numbers(client, Vec::from_iter(keys)).await.map(Some)
    }

    /// Projects events that are recorded in the client's transaction, whose rows are locked.
    pub(crate) async fn apply_inline(
        &self,
        client: &Client,
        events: &[Recorded],
    ) -> Result<(), Error> {
        let steps = self.steps.all(events.to_vec())?;
        // The rows were locked before the events had a place in the log.
        let unplaced = events.iter().cloned().map(|mut event| {
            event.position = Position::START;
            event.version = Version::NONE;
            event.recorded_at = DateTime::UNIX_EPOCH;
            event
        });
        for (step, locked) in steps.iter().zip(self.steps.all(unplaced.collect())?) {
            let locked = locked.keys.as_slice();
            if step.keys.as_slice().iter().any(|key| !locked.contains(key)) {
                let (projection, position) = (R::TABLE, step.position);
                return Err(Error::UnlockedKey { projection, position });
            }
        }
        let mut folding = Folding::default();
        self.rows.load(client, &mut folding, &steps).await?;
        folding.fold(&steps)?;
        self.rows.write(client, &folding).await
    }

    pub(crate) fn categories() -> Vec<String> {
        R::sources().iter().map(|source| source.category().to_owned()).collect()
    }
}

#[async_trait]
impl<R: ReadModel> Target for Engine<R> {
    async fn prepare(&mut self) -> Result<(), Error> {
        self.forget();
        install::<R>(&self.database).await
    }

    async fn apply(&mut self, mut batch: Batch, checkpoint: &mut Checkpoint) -> Result<(), Error> {
        let events = std::mem::take(&mut batch.events);
        let (mut steps, mut failure) = self.steps.of(events);
        if let Some(Late { at, .. }) = batch.late() {
            // What was answered for the past stays: they have their effect now.
            steps.iter_mut().for_each(|step| step.position = *at);
        }
        let mut to = batch.to;
        loop {
            if let Some(failed) = &failure {
                // All below is projected, and then it fails.
                to = Position::new(failed.position.get() - 1);
                steps.retain(|step| step.position <= to);
            }
            if failure.is_some() && (batch.late().is_some() || to <= checkpoint.position()) {
                break;
            }
            match self.project(&steps, &batch, checkpoint, to).await {
                Err(Error::Event(failed)) if failure.is_none() => failure = Some(failed),
                outcome => {
                    outcome?;
                    break;
                }
            }
        }
        failure.map_or(Ok(()), |failed| Err(Error::Event(failed)))
    }
}
