//! The driver around the machine: what happens to sagas, recorded in one transaction with what is due of them.

use std::{
    collections::{BTreeMap, btree_map},
    marker::PhantomData,
    time::Duration,
};

use annals_eventstore::{
    Aggregate, Append, Error as StoreError, EventStore, ExpectedVersion, Metadata, NewEvent,
    Position, StreamId, UnitOfWork, Version, Waits,
    postgres::{Checkpoint, Client, Database},
};
use chrono::{DateTime, Utc};
use uuid::Uuid;

use super::{
    Instance, Process, SagaEvent, SagaStatus,
    machine::{self, Input, Moment, Outcome, Sent},
    row::{self, Row, Rows},
    source::Occurrence,
    turn::Turn,
};
use crate::{
    error::Error,
    guard::{Cause, guarded},
    metrics,
    target::{Beside, enter},
};

/// Where the sagas of one kind are recorded.
pub(crate) struct Ledger<S> {
    pub(super) store: EventStore,
    pub(super) database: Database,
    saga: PhantomData<fn() -> S>,
}

/// Something that happened to a saga.
pub(super) enum News<S: Process> {
    Event(Occurrence<S>),
    /// What came of an attempt at a call.
    Outcome {
        id: Uuid,
        attempt: u32,
        outcome: Outcome<S::Reply>,
    },
    /// An attempt that is put off.
    PutOff {
        attempt: u32,
        wait: Duration,
        /// Whether this attempt may have had an effect.
        sent: Sent,
    },
    /// A timer may be due, or somebody may have asked for something.
    Look,
    /// It cannot be read.
    Damaged(String),
}

/// What moves the checkpoint where events are heard.
#[derive(Clone, Copy, Debug)]
pub(super) struct Entry<'a> {
    pub(super) checkpoint: &'a Checkpoint,
    /// What is written beside it.
    pub(super) beside: &'a Beside,
    pub(super) to: Position,
}

/// Why nothing of it was recorded.
#[derive(Debug, thiserror::Error)]
pub(super) enum Unsettled {
    /// The saga that this news is for cannot take it.
    #[error("a saga cannot take in what happened to it")]
    Failed { index: usize, source: Cause },
    #[error(transparent)]
    Error(#[from] Error),
}

impl From<StoreError> for Unsettled {
    fn from(error: StoreError) -> Self {
        Self::Error(error.into())
    }
}

/// A saga that a transaction is at.
struct Open<S> {
    /// Its first news.
    index: usize,
    row: Row,
    instance: Instance<S>,
    version: Version,
    new: Vec<NewEvent>,
    changed: bool,
    /// How late timers went off.
    late: Vec<Duration>,
}

impl<S: Process> Ledger<S> {
    pub(crate) fn new(store: &EventStore, database: &Database) -> Self {
        Self { store: store.clone(), database: database.clone(), saga: PhantomData }
    }

    /// Records what happened and what comes of it, in one transaction. Where that is news of events, `entry` moves the
    /// checkpoint in it.
    ///
    /// # Errors
    /// [`Unsettled::Failed`] names the first news that a saga cannot take in; then nothing is recorded.
    pub(super) async fn record(
        &self,
        news: &[&(String, News<S>)],
        patience: Duration,
        entry: Option<Entry<'_>>,
    ) -> Result<(), Unsettled> {
        let mut delays = delays();
        loop {
            let mut unit = self.store.begin().await?;
            let error = match self.collect(&mut unit, news, patience, entry).await {
                Ok(turns) => match unit.commit().await {
                    Ok(_) => {
                        turns.iter().for_each(Turn::tell);
                        return Ok(());
                    }
                    Err(error) => error.into(),
                },
                Err(unsettled) => {
                    // Before it is done again: its locks would be in its own way.
                    drop(unit.rollback().await);
                    match unsettled {
                        Unsettled::Error(error) => error,
                        failed => return Err(failed),
                    }
                }
            };
            match delays.next() {
                Some(delay) if loses(&error) => tokio::time::sleep(delay).await,
                _ => return Err(error.into()),
            }
        }
    }

    async fn collect(
        &self,
        unit: &mut UnitOfWork,
        news: &[&(String, News<S>)],
        patience: Duration,
        entry: Option<Entry<'_>>,
    ) -> Result<Vec<Turn>, Unsettled> {
        let client = unit.sql()?;
        // A worker that is paused here keeps rows locked, until the database ends it.
        let patience = patience.as_millis().clamp(1000, i32::MAX as u128);
        let settings = format!("set local idle_in_transaction_session_timeout = {patience}");
        let failed = |source| Error::Bookkeeping { action: "limit a transaction", source };
        client.batch_execute(&settings).await.map_err(failed)?;
        if let Some(Entry { checkpoint, beside, to }) = entry {
            let ready = checkpoint.prepare(client).await?;
            enter(&self.database, client, (checkpoint, &ready), beside, to).await?;
        }
        self.settle(unit, news).await
    }

    /// Takes in what happened, in its order: locks the sagas' rows, decides, and collects for the unit's commit. Returns
    /// what is to be told once that is done.
    async fn settle(
        &self,
        unit: &mut UnitOfWork,
        news: &[&(String, News<S>)],
    ) -> Result<Vec<Turn>, Unsettled> {
        let client = unit.sql()?;
        let mut rows = self.lock(client, news).await?;
        // After the locks: what is due by now was set by somebody before.
        let now = self.now(client).await?;
        let mut open = self.open(news, &mut rows).await?;
        for (index, (key, news)) in news.iter().enumerate() {
            let Some(open) = open.get_mut(key) else { continue };
            let taken = self.take(open, key, news, now);
            taken.map_err(|source| Unsettled::Failed { index, source })?;
        }
        let (mut written, mut turns) = (Rows::default(), Vec::new());
        for (key, open) in open {
            turns.extend(Turn::of(&key, open.row.status, &open.instance, open.late));
            if open.changed {
                written.push(&key, &open.row, &open.instance);
            }
            if !open.new.is_empty() {
                let stream = StreamId::new(Instance::<S>::CATEGORY, &key)?;
                let expected = match open.version {
                    Version::NONE => ExpectedVersion::NoStream,
                    version => ExpectedVersion::Exact(version),
                };
                let appended = unit.append(Append::to(stream, expected, open.new)).await;
                appended.map_err(|error| match error.is_retryable() {
                    true => error.into(),
                    // Too large, say.
                    false => Unsettled::Failed { index: open.index, source: error.into() },
                })?;
            }
        }
        written.write(&self.database, unit.sql()?, S::CATEGORY).await?;
        Ok(turns)
    }

    async fn lock(
        &self,
        client: &Client,
        news: &[&(String, News<S>)],
    ) -> Result<BTreeMap<String, Row>, Error> {
        let mut keys: Vec<_> = news.iter().map(|(key, _)| key.clone()).collect();
        keys.sort_unstable();
        keys.dedup();
        let rows = row::lock(&self.database, client, S::CATEGORY, &keys).await?;
        Ok(rows.into_iter().collect())
    }

    async fn now(&self, client: &Client) -> Result<DateTime<Utc>, Error> {
        let failed = |source| Error::Bookkeeping { action: "ask for the time", source };
        let row = client.query_one("select clock_timestamp()", &[]).await.map_err(failed)?;
        Ok(row.get(0))
    }

    /// Loads the sagas that something happened to, but for those that have ended.
    async fn open(
        &self,
        news: &[&(String, News<S>)],
        rows: &mut BTreeMap<String, Row>,
    ) -> Result<BTreeMap<String, Open<S>>, Unsettled> {
        let mut wanted: BTreeMap<&String, usize> = BTreeMap::new();
        for (index, (key, _)) in news.iter().enumerate() {
            if !rows.get(key).is_some_and(Row::is_ended)
                && let btree_map::Entry::Vacant(entry) = wanted.entry(key)
            {
                entry.insert(index);
            }
        }
        let loads = wanted.keys().map(|key| self.store.load::<Instance<S>>(key.as_str()));
        let loaded = futures::future::join_all(loads).await;
        let mut open = BTreeMap::new();
        for ((key, index), loaded) in wanted.into_iter().zip(loaded) {
            let loaded = match loaded {
                Ok(loaded) => loaded,
                Err(error) if error.is_retryable() => return Err(error.into()),
                Err(error) => return Err(Unsettled::Failed { index, source: error.into() }),
            };
            let row = rows.remove(key).unwrap_or_default();
            let (instance, version) = match loaded {
                Some(loaded) => (loaded.state, loaded.version),
                None if row.status.is_some() => {
                    let source = Gone.into();
                    return Err(Unsettled::Failed { index, source });
                }
                None => (Instance::default(), Version::NONE),
            };
            let (new, changed, late) = (Vec::new(), false, Vec::new());
            open.insert(key.clone(), Open { index, row, instance, version, new, changed, late });
        }
        Ok(open)
    }

    fn take(
        &self,
        open: &mut Open<S>,
        key: &str,
        news: &News<S>,
        now: DateTime<Utc>,
    ) -> Result<(), Cause> {
        match news {
            News::Event(occurrence) => {
                open.step(key, Input::Event(occurrence), now, Some(occurrence.id))
            }
            News::Outcome { id, attempt, outcome } => {
                // One that failed is no news where a later one is under way.
                let is_late = open.row.attempts > *attempt as i32;
                if is_late && matches!(outcome, Outcome::Failed { .. }) {
                    return Ok(());
                }
                open.step(key, Input::Outcome(*id, outcome), now, Some(*id))
            }
            News::PutOff { attempt, wait, sent } => {
                if open.instance.pending.is_some() && open.row.attempts == *attempt as i32 {
                    open.row.put_off(super::Due::After(*wait).at(now), *sent);
                    open.changed = true;
                }
                Ok(())
            }
            News::Look => {
                if open.instance.pending.is_none() && open.row.call_due.is_some() {
                    // There is no such call any more.
                    open.row.call(None, None, now);
                    open.changed = true;
                }
                if let Some((wish, why)) = open.row.asked.take() {
                    // Also where nothing comes of it: the wish is dealt with, and what is due is put right.
                    open.changed = true;
                    open.restore(now);
                    open.step(key, Input::Wish(wish, &why), now, None)?;
                }
                let due = open.instance.timers.values().filter(|at| **at <= now);
                let late: Vec<_> = due.filter_map(|at| (now - *at).to_std().ok()).collect();
                open.late.extend(late);
                open.step(key, Input::Time, now, None)
            }
            News::Damaged(reason) => Err(reason.as_str().into()),
        }
    }

    /// Notes that a saga cannot go on, for a reason that its stream cannot tell.
    pub(super) async fn damaged(&self, key: &str, reason: &str) -> Result<(), Error> {
        let failed = |source| Error::Bookkeeping { action: "note that a saga is stuck", source };
        let sql = self.database.schema().sql(include_str!("sql/damaged.sql"));
        let reason = reason.replace('\0', "\u{fffd}");
        let client = self.database.client().await?;
        client.execute(&sql, &[&S::CATEGORY, &key, &reason]).await.map_err(failed)?;
        metrics::turned(S::CATEGORY, SagaStatus::Stuck);
        Ok(())
    }
}

/// The waits between attempts to record something.
fn delays() -> impl Iterator<Item = Duration> + Send {
    Waits::full(Duration::from_millis(2), Duration::from_millis(100)).take(8)
}

/// True if the same may go well another time: something else happened to the same sagas, say.
pub(super) fn loses(error: &Error) -> bool {
    let contended = matches!(error, Error::Store(StoreError::Conflict { .. }));
    contended || error.is_retryable()
}

#[derive(Debug, thiserror::Error)]
#[error("its stream is deleted")]
struct Gone;

impl<S: Process> Open<S> {
    fn step(
        &mut self,
        key: &str,
        input: Input<'_, S>,
        now: DateTime<Utc>,
        cause: Option<Uuid>,
    ) -> Result<(), Cause> {
        let before = self.instance.pending.clone();
        let moment = Moment { key, now, sent: self.row.sent(before.as_ref()) };
        let decided = guarded(|| machine::step(&mut self.instance, moment, input))?;
        if decided.is_empty() {
            return Ok(());
        }
        let mut metadata = Metadata::new();
        metadata.causation_id = cause.map(|id| id.to_string());
        metadata.correlation_id.clone_from(&self.instance.correlation_id);
        metadata.traceparent.clone_from(&self.instance.traceparent);
        for event in &decided {
            self.new.push(new_event(event)?.metadata(metadata.clone()));
        }
        self.row.call(before.as_ref(), self.instance.pending.as_ref(), now);
        self.changed = true;
        Ok(())
    }

    /// Makes anew what is due, where the row was marked as damaged.
    fn restore(&mut self, now: DateTime<Utc>) {
        let pending = self.instance.pending.as_ref();
        if self.row.call_due.is_none() {
            // It may have been sent before.
            self.row.attempts = self.row.attempts.max(i32::from(pending.is_some()));
            self.row.call_due = pending.and_then(|pending| pending.due).map(|due| due.max(now));
        }
    }
}

fn new_event<E: annals_eventstore::Event>(event: &SagaEvent<E>) -> Result<NewEvent, StoreError> {
    NewEvent::of(event)
}
