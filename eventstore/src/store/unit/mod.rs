//! Units of work: several streams, several aggregates and the program's own SQL in one transaction.

mod collected;
mod inline;
mod outcome;

use std::collections::HashMap;

use serde::Serialize;
use sha2::{Digest, Sha256};

pub(super) use self::inline::concerns;
pub use self::outcome::{Decided, UnitCommitted};
use self::{
    collected::Collected,
    outcome::{Slot, outcomes},
};
use super::{
    EventStore,
    check::{Check, idempotency_key},
    content, load,
    observed::Observed,
};
use crate::{
    aggregate::{Aggregate, Loaded},
    append::{Append, NewEvent},
    backend::{KeyRecord, KnownKey, Outcome, Session},
    command::{Command, Committed, Envelope, Fingerprint, Handle, fingerprint},
    error::{Error, ExecuteError},
    ids::{Position, StreamId, Version},
    postgres::Client,
};

type ErrorOf<C> = <<C as Command>::Aggregate as Aggregate>::Error;

impl EventStore {
    /// Begins a unit of work: several streams, several aggregates and SQL of the program's own,
    /// recorded together or not at all.
    ///
    /// ```no_run
    /// # use annals_eventstore::*;
    /// # async fn run<C>(store: EventStore, debit: C, credit: C) -> Result<(), Box<dyn std::error::Error>>
    /// # where C: Command, C::Aggregate: Handle<C> {
    /// let mut unit = store.begin().await?;
    /// unit.execute(debit).await?;
    /// unit.execute(credit).await?;
    /// unit.sql()?.execute("update quota set used = used + 1 where name = 'transfers'", &[]).await?;
    /// let committed = unit.commit().await?;
    /// # Ok(()) }
    /// ```
    ///
    /// [`transact`](Self::transact) does the same and tries again after a conflict. A unit holds a
    /// connection until it ends. Cancellation safe.
    ///
    /// # Errors
    /// If the database cannot be reached, or all connections stay taken.
    pub async fn begin(&self) -> Result<UnitOfWork, Error> {
        Ok(UnitOfWork {
            session: self.backend.begin().await?,
            store: self.clone(),
            collected: Collected::default(),
            slots: Vec::new(),
            keys: HashMap::new(),
            whole: None,
            conflict: None,
            again: false,
            snapshots: HashMap::new(),
        })
    }
}

/// A unit of work: commands, appends and SQL that are committed together. Get one from
/// [`EventStore::begin`].
///
/// It collects events and appends them at [`commit`](Self::commit), all at once: only then are
/// positions drawn, so however long the unit takes, it holds up no one who follows the log.
///
/// What it does rests on what it saw: every stream that was loaded, by [`load`](Self::load) or for a
/// command, must still be at that version when it commits, or the commit is a
/// [`Conflict`](Error::Conflict). Where that is not wanted, load with [`EventStore::load`].
///
/// Its transaction is READ COMMITTED, and that cannot be changed: of rows of your own that you read and
/// then write, take a lock (`select .. for update`).
///
/// Dropping it, or [`rollback`](Self::rollback), leaves nothing behind.
pub struct UnitOfWork {
    session: Box<dyn Session>,
    store: EventStore,
    collected: Collected,
    /// What each command led to.
    slots: Vec<Slot>,
    /// The idempotency keys of this unit: each with its fingerprint, and of a command its number.
    keys: HashMap<String, (Fingerprint, Option<usize>)>,
    /// The idempotency key of the unit itself.
    whole: Option<(String, Fingerprint)>,
    /// A stream that is known to have changed: the unit cannot be committed.
    conflict: Option<Conflict>,
    /// True once something failed that may go well in another unit.
    again: bool,
    /// By their streams, what to tell of its commit: a snapshot may be due then.
    snapshots: HashMap<StreamId, Vec<load::Committed>>,
}

type Conflict = (StreamId, crate::ExpectedVersion, Version);

impl std::fmt::Debug for UnitOfWork {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("UnitOfWork").field("commands", &self.slots.len()).finish_non_exhaustive()
    }
}

impl UnitOfWork {
    /// Executes a command: loads its aggregate as this unit sees it, lets it decide, and collects its
    /// events for the commit.
    ///
    /// A rejected command leaves the unit as it was, except that the commit rests on the stream that
    /// was loaded for it. Dropping the future leaves the unit as it was, too.
    ///
    /// # Errors
    /// [`ExecuteError::Rejected`] with the domain's reason, [`ExecuteError::Failed`] with the store's.
    pub async fn execute<C>(
        &mut self,
        command: impl Into<Envelope<C>>,
    ) -> Result<Decided, ExecuteError<ErrorOf<C>>>
    where
        C: Command,
        C::Aggregate: Handle<C>,
    {
        let envelope = command.into();
        let command = &envelope.command;
        let stream = StreamId::new(C::Aggregate::CATEGORY, command.stream_key())?;
        let key = match &envelope.idempotency_key {
            None => None,
            Some(key) => {
                let fingerprint = fingerprint(&stream, command)?;
                if let Some(decided) = self.decided_before(key, fingerprint, &stream).await? {
                    return Ok(decided);
                }
                Some((key.clone(), fingerprint))
            }
        };
        let index = self.bring::<C::Aggregate>(&stream).await?;
        let Some(loaded) = self.collected.state::<C::Aggregate>(index)? else {
            return Err(Error::Closed.into());
        };
        envelope.check_version(&stream, loaded.version)?;
        let events = match loaded.state.handle(envelope.command) {
            Ok(events) => events,
            Err(reason) => {
                let key = key.map(|(key, _)| key);
                return match self.was_overtaken(key).await {
                    Ok(false) => Err(ExecuteError::Rejected(reason)),
                    Ok(true) => Err(Error::KeyInFlight.into()),
                    Err(error) => Err(error.into()),
                };
            }
        };
        let version = loaded.version.plus(events.len());
        let mut check = Check::resume(&self.store.options, self.collected.so_far);
        let mut encoded = Vec::with_capacity(events.len());
        for event in &events {
            let mut new = NewEvent::of(event)?.metadata(envelope.metadata.clone());
            new.occurred_at = envelope.occurred_at;
            new.recorded_at = envelope.recorded_at;
            check.event(&mut new)?;
            encoded.push(new);
        }
        self.collected.add::<C::Aggregate>(index, &events, encoded, check.so_far());
        let (last, number) = self.collected.counts(index);
        if let Some((key, fingerprint)) = key {
            self.keys.insert(key.clone(), (fingerprint, Some(self.slots.len())));
            let events = events.len();
            self.collected.keys.push(KeyRecord {
                key,
                fingerprint,
                stream: index,
                number,
                last,
                events,
            });
        }
        let decided = Decided { stream, version, events: events.len(), replayed: false };
        self.slots.push(Slot::Collected { decided: decided.clone(), last });
        Ok(decided)
    }

    /// Loads an aggregate as this unit sees it, with the events that it has collected; `None` if there
    /// are none. The commit rests on the version that is loaded, also if there is none.
    ///
    /// # Errors
    /// As [`EventStore::load`]; also [`Error::Conflict`] if the stream is not as an append of this unit
    /// expects it.
    pub async fn load<A: Aggregate>(
        &mut self,
        key: impl std::fmt::Display,
    ) -> Result<Option<&Loaded<A>>, Error> {
        let stream = StreamId::new(A::CATEGORY, key)?;
        let index = self.bring::<A>(&stream).await?;
        let loaded = self.collected.state::<A>(index)?;
        Ok(loaded.map(|loaded| &*loaded).filter(|loaded| loaded.version > Version::NONE))
    }

    /// Collects the events of an append for the commit. What it expects of its streams is what the unit
    /// sees: with the events collected before.
    ///
    /// # Errors
    /// [`Error::InvalidAppend`]; [`Error::Conflict`] if it contradicts what the unit has seen or
    /// expects; [`Error::KeyReused`].
    pub async fn append(&mut self, append: Append) -> Result<(), Error> {
        append.check_streams()?;
        let key = match &append.idempotency_key {
            None => None,
            Some(key) => {
                idempotency_key(key)?;
                let content = content(&append.streams, &append.events);
                if self.is_known(key, content).await?.is_some() {
                    return Ok(());
                }
                Some((key.clone(), content))
            }
        };
        let check = Check::resume(&self.store.options, self.collected.so_far);
        let appended = self.collected.append(append, check, key.clone());
        self.note(appended)?;
        self.keys.extend(key.map(|(key, content)| (key, (content, None))));
        Ok(())
    }

    /// Makes the unit as a whole idempotent. Call it first: if a unit under this key was committed, it
    /// returns the position of its last event, and there is nothing to be done again.
    ///
    /// The key is bound to `content`, what the unit is asked to do: for example the request that it
    /// serves. The unit must touch a stream.
    ///
    /// # Errors
    /// [`Error::KeyReused`] if the key was used for another content.
    pub async fn idempotency_key(
        &mut self,
        key: impl Into<String>,
        content: &impl Serialize,
    ) -> Result<Option<Position>, Error> {
        let key = key.into();
        idempotency_key(&key)?;
        if self.whole.is_some() {
            return Err(Error::invalid_append("the unit has an idempotency key already"));
        }
        let value = serde_json::to_value(content)
            .map_err(|source| Error::Encode { what: "the unit's content".to_owned(), source })?;
        let mut hash = Sha256::new();
        hash.update(b"unit of work\0");
        // The maps of a `Value` are sorted.
        hash.update(value.to_string());
        let fingerprint = hash.finalize().into();
        if let Some(known) = self.is_known(&key, fingerprint).await? {
            return Ok(Some(known.position));
        }
        self.keys.insert(key.clone(), (fingerprint, None));
        self.whole = Some((key, fingerprint));
        Ok(None)
    }

    /// The connection, for statements in the unit's transaction. Do not begin or end transactions on
    /// it: the commit would be refused. Savepoints are fine.
    ///
    /// # Errors
    /// [`Error::NeedsPostgres`] if the store is in memory.
    pub fn sql(&self) -> Result<&Client, Error> {
        self.session.sql()
    }

    /// Appends what was collected, projects it inline, and commits it with all else.
    ///
    /// Not cancellation safe: if the future is dropped, the unit may be recorded, as a whole, or not at
    /// all; with an idempotency key, another unit under the same one settles it.
    ///
    /// # Errors
    /// [`Error::Conflict`] if a stream changed that the unit rests on; [`Error::StreamDeleted`] or
    /// [`Error::StreamArchived`] if one is no longer in use; [`Error::KeyInFlight`];
    /// [`Error::UnitEnded`]; [`Error::Inline`]; [`Error::Indeterminate`] if the connection was lost
    /// while it committed; or a failure of the database, for example if a statement of the program's
    /// own failed and was not undone. Except after `Indeterminate`, nothing is recorded.
    pub async fn commit(mut self) -> Result<UnitCommitted, Error> {
        if let Some((stream, expected, actual)) = self.conflict {
            return Err(Error::Conflict { stream, expected, actual });
        }
        if let Some((key, fingerprint)) = self.whole.take() {
            if self.collected.is_untouched() {
                return Err(Error::invalid_append(
                    "a unit with an idempotency key must touch at least one stream",
                ));
            }
            let (events, number) = self.collected.counts(0);
            let record = KeyRecord { key, fingerprint, stream: 0, number, last: events, events };
            self.collected.keys.push(record);
        }
        let request = self.collected.request();
        let committing = self.session.commit(request.clone(), &self.store.inline);
        match Observed::new(&request).through(committing).await? {
            Outcome::Recorded { before, first } => {
                let total = request.events.len();
                let last = |count: usize| Position::new(first.get() + count as i64 - 1);
                let versions = self.collected.versions(&before);
                for (stream, version) in &versions {
                    let committed = self.snapshots.remove(stream).into_iter().flatten();
                    committed.for_each(|committed| committed(*version));
                }
                Ok(UnitCommitted {
                    commands: outcomes(self.slots, last),
                    versions,
                    first_position: if total == 0 { Position::START } else { first },
                    last_position: if total == 0 { Position::START } else { last(total) },
                })
            }
            Outcome::Conflict { stream, actual } => {
                let (stream, expected) = request.streams[stream].clone();
                Err(Error::Conflict { stream, expected, actual })
            }
            Outcome::NotLive { stream, state } => {
                Err(state.refusal(request.streams[stream].0.clone()))
            }
            Outcome::KeyTaken => Err(Error::KeyInFlight),
        }
    }

    /// Ends the unit and leaves nothing behind. Dropping it does so too; this waits until it is done.
    ///
    /// # Errors
    /// If the connection is lost; then, too, nothing is left.
    pub async fn rollback(self) -> Result<(), Error> {
        self.session.rollback().await
    }

    /// True if a key of this unit, or `key`, is recorded by now. What the unit has loaded since may
    /// hold the events recorded under it, so a refusal says nothing.
    pub(super) async fn was_overtaken(&mut self, key: Option<String>) -> Result<bool, Error> {
        let keys: Vec<_> = self.keys.keys().cloned().chain(key).collect();
        if keys.is_empty() {
            return Ok(false);
        }
        let known = self.session.known_keys(&keys).await;
        let was_overtaken = !self.note(known)?.is_empty();
        self.again |= was_overtaken;
        Ok(was_overtaken)
    }

    /// True if what failed so far may go well in another unit.
    pub(super) fn may_pass(&self) -> bool {
        self.again
    }

    /// True if another unit would notice that this one was recorded.
    pub(super) fn has_key(&self) -> bool {
        self.whole.is_some()
    }

    /// Sees to it that an aggregate is loaded; returns the index of its stream.
    async fn bring<A: Aggregate>(&mut self, stream: &StreamId) -> Result<usize, Error> {
        if let Some(index) = self.collected.index(stream)
            && self.collected.is_loaded::<A>(index)
        {
            return Ok(index);
        }
        let loaded = self.store.load_in::<A>(&*self.session, stream).await;
        let (loaded, committed) = self.note(loaded)?;
        let inserted = self.collected.insert(stream, loaded);
        let index = self.note(inserted)?;
        if let Some(committed) = committed {
            self.snapshots.entry(stream.clone()).or_default().push(committed);
        }
        Ok(index)
    }

    /// The outcome under a key that is known from before or from this unit; `None` if it is new.
    async fn decided_before(
        &mut self,
        key: &str,
        fingerprint: Fingerprint,
        stream: &StreamId,
    ) -> Result<Option<Decided>, Error> {
        idempotency_key(key)?;
        let (decided, slot) = match self.keys.get(key) {
            Some((same, Some(number))) if *same == fingerprint => {
                let decided = self.slots[*number].decided(&self.slots);
                (decided, Slot::Repeats(*number))
            }
            _ => {
                let Some(known) = self.is_known(key, fingerprint).await? else {
                    return Ok(None);
                };
                let committed = Committed {
                    stream: stream.clone(),
                    version: known.version,
                    position: known.position,
                    events: known.events,
                    replayed: true,
                };
                let slot = Slot::Known(committed);
                (slot.decided(&self.slots), slot)
            }
        };
        self.slots.push(slot);
        Ok(Some(Decided { replayed: true, ..decided }))
    }

    /// What is recorded under a key, if it is the same content.
    async fn is_known(
        &mut self,
        key: &str,
        fingerprint: Fingerprint,
    ) -> Result<Option<KnownKey>, Error> {
        if self.keys.contains_key(key) {
            return Err(Error::KeyReused { key: key.to_owned() });
        }
        let known = self.session.known_keys(&[key.to_owned()]).await;
        match self.note(known)?.pop() {
            Some(known) if known.fingerprint != fingerprint => {
                Err(Error::KeyReused { key: known.key })
            }
            known => Ok(known),
        }
    }

    /// Keeps in mind what a failure means for the unit.
    fn note<T>(&mut self, result: Result<T, Error>) -> Result<T, Error> {
        if let Err(error) = &result {
            self.again |= passes(error);
            if let Error::Conflict { stream, expected, actual } = error {
                self.conflict = Some((stream.clone(), *expected, *actual));
            }
        }
        result
    }
}

/// True if another unit may go well where this one left nothing behind.
pub(super) fn passes(error: &Error) -> bool {
    match error {
        Error::Conflict { .. } => true,
        Error::Indeterminate { .. } => false,
        error => error.is_retryable(),
    }
}
