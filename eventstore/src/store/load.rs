//! Loading aggregates: as they are, and as they were.

use std::{
    any::TypeId,
    collections::HashMap,
    sync::{Arc, PoisonError, RwLock},
    time::{Duration, Instant},
};

use chrono::{DateTime, Utc};
use tokio::sync::Semaphore;

use super::{EventStore, cache::Held, state::State};
use crate::{
    aggregate::{Aggregate, Loaded},
    backend::{Load, NewSnapshot, Session, StoredSnapshot},
    error::Error,
    ids::{Position, StreamId, Version},
    life::StreamState,
    query::Archived,
    snapshot::{SnapshotKind, Snapshots},
};

/// A moment of the past.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum AsOf {
    /// Up to this version of the stream, or its end if that comes first.
    Version(Version),
    /// Up to this position of the log. Beyond its end is an error.
    Position(Position),
    /// Up to the last event recorded at or before this time. The future is an error.
    Time(DateTime<Utc>),
}

/// Is told to which version a unit of work has brought a stream.
pub(super) type Committed = Box<dyn FnOnce(Version) + Send + Sync>;

/// How far a fold goes, and whether also over archived events.
#[derive(Clone, Copy, Debug)]
pub(super) struct UpTo {
    version: Version,
    position: Position,
    archived: Archived,
}

impl UpTo {
    pub(super) const END: Self = Self {
        version: Version::new(i64::MAX),
        position: Position::new(i64::MAX),
        archived: Archived::Excluded,
    };

    /// The same, over archived events as well.
    pub(super) const END_WITH_ARCHIVED: Self = Self { archived: Archived::Included, ..Self::END };
}

impl EventStore {
    /// Loads an aggregate as it is now; `None` if its stream has no events, or is deleted.
    ///
    /// Of an aggregate that is `Clone`, the cache keeps the state, and only events that are newer are
    /// fetched. Of one with snapshots, the events since the last one are.
    ///
    /// # Errors
    /// [`Error::Decode`] names the event that cannot be read; [`Error::StreamArchived`] if the stream is
    /// archived, see [`load_archived`](Self::load_archived); or a failure of the database.
    pub async fn load<A: Aggregate>(
        &self,
        key: impl std::fmt::Display,
    ) -> Result<Option<Loaded<A>>, Error> {
        let stream = StreamId::new(A::CATEGORY, key)?;
        let mut state = self.cache.copy::<A>(&stream);
        let started = Instant::now();
        self.fold(None, vec![(&stream, &mut state)], UpTo::END).await?;
        let mut state = state.unwrap_or_else(State::initial);
        state.spent = started.elapsed();
        self.snapshot_if_due(&stream, &mut state);
        self.cache.offer(&stream, &state);
        Ok(state.loaded.if_exists())
    }

    /// Loads an aggregate as it was; `None` if its stream had no events then, or is deleted now.
    ///
    /// The fold starts from the nearest snapshot below that moment.
    ///
    /// # Errors
    /// [`Error::Future`] or [`Error::BeyondEnd`] for a moment that has not come yet, else as
    /// [`load`](Self::load).
    pub async fn load_as_of<A: Aggregate>(
        &self,
        key: impl std::fmt::Display,
        as_of: AsOf,
    ) -> Result<Option<Loaded<A>>, Error> {
        let stream = StreamId::new(A::CATEGORY, key)?;
        let up_to = self.up_to(as_of).await?;
        Ok(self.load_up_to::<A>(&stream, up_to).await?.loaded.if_exists())
    }

    /// Takes a snapshot of an aggregate as it is now, whether or not one is due. Returns its version;
    /// `None` if the stream has no events, or is deleted.
    ///
    /// # Errors
    /// [`Error::NoSnapshots`] if the aggregate has none, else as [`load`](Self::load).
    pub async fn snapshot<A: Aggregate>(
        &self,
        key: impl std::fmt::Display,
    ) -> Result<Option<Version>, Error> {
        let snapshots =
            A::SNAPSHOTS.as_ref().ok_or(Error::NoSnapshots { category: A::CATEGORY })?;
        let stream = StreamId::new(A::CATEGORY, key)?;
        let State { loaded, snapshot: known, .. } =
            self.load_up_to::<A>(&stream, UpTo::END).await?;
        if loaded.version > known {
            let snapshot = self.new_snapshot(&stream, snapshots, &loaded)?;
            self.backend.save_snapshot(snapshot).await?;
        }
        Ok((loaded.version > Version::NONE).then_some(loaded.version))
    }

    /// How far a fold as of a moment goes, once it is settled which events count.
    async fn up_to(&self, as_of: AsOf) -> Result<UpTo, Error> {
        Ok(match as_of {
            AsOf::Version(version) => UpTo { version, ..UpTo::END },
            AsOf::Time(time) => UpTo { position: self.position_at(time).await?, ..UpTo::END },
            AsOf::Position(position) => {
                let end = self.backend.last_position().await?;
                if position > end {
                    return Err(Error::BeyondEnd { at: position, end });
                }
                // It is there, and what is in flight below it must be settled.
                while self.safe_position().await? < position {
                    tokio::time::sleep(Duration::from_millis(3)).await;
                }
                UpTo { position, ..UpTo::END }
            }
        })
    }

    /// Loads past the cache.
    pub(super) async fn load_up_to<A: Aggregate>(
        &self,
        stream: &StreamId,
        up_to: UpTo,
    ) -> Result<State<A>, Error> {
        let mut state = None;
        self.fold(None, vec![(stream, &mut state)], up_to).await?;
        Ok(state.unwrap_or_else(State::initial))
    }

    /// Loads an aggregate as a unit of work sees it recorded, past the cache, and says what is to be done about its
    /// snapshots once the unit is committed.
    pub(super) async fn load_in<A: Aggregate>(
        &self,
        session: &dyn Session,
        stream: &StreamId,
    ) -> Result<(Loaded<A>, Option<Committed>), Error> {
        let (mut state, started) = (None, Instant::now());
        self.fold(Some(session), vec![(stream, &mut state)], UpTo::END).await?;
        let State { loaded, snapshot, .. } = state.unwrap_or_else(State::initial);
        let spent = started.elapsed();
        let (store, stream) = (self.clone(), stream.clone());
        let committed = A::SNAPSHOTS.as_ref().map(|_| -> Committed {
            Box::new(move |version| store.snapshot_of_unit::<A>(stream, snapshot, spent, version))
        });
        Ok((loaded, committed))
    }

    /// Takes a snapshot, if one is due, of an aggregate that a unit of work has brought to a version. Its position is
    /// known once it is committed, so the aggregate is loaded anew.
    fn snapshot_of_unit<A: Aggregate>(
        self,
        stream: StreamId,
        last: Version,
        spent: Duration,
        version: Version,
    ) {
        let since = version.get() - last.get();
        if !A::SNAPSHOTS.as_ref().is_some_and(|snapshots| snapshots.is_due(since, spent)) {
            return;
        }
        let Ok(permit) = self.snapshots.saving.clone().try_acquire_owned() else { return };
        tokio::spawn(async move {
            if let Err(error) = self.snapshot::<A>(stream.key()).await {
                tracing::warn!(%stream, %error, "snapshot not kept; loads fold more events");
            }
            drop(permit);
        });
    }

    /// Brings states that are held up to date with the log, in as few queries as can be.
    pub(super) async fn catch_up<'a, A: Aggregate>(
        &self,
        held: impl IntoIterator<Item = &'a mut Held<A>>,
    ) -> Result<(), Error> {
        let started = Instant::now();
        let mut targets = Vec::new();
        for held in held {
            held.is_stale = false;
            targets.push((&held.stream, &mut held.state));
        }
        let alone = targets.len() == 1;
        for state in self.fold(None, targets, UpTo::END).await? {
            state.is_current = true;
            if alone {
                // Of a load of many, nobody knows which one took the time.
                state.spent = started.elapsed();
            }
        }
        Ok(())
    }

    /// Gives states back to the cache, and takes the snapshots that are due.
    pub(super) fn put<A: Aggregate>(&self, held: impl IntoIterator<Item = Held<A>>) {
        for mut held in held {
            if let Some(state) = &mut held.state {
                self.snapshot_if_due(&held.stream, state);
            }
            self.cache.put(held);
        }
    }

    fn snapshot_if_due<A: Aggregate>(&self, stream: &StreamId, state: &mut State<A>) {
        let Some(snapshots) = &A::SNAPSHOTS else { return };
        let since = state.loaded.version.get() - state.snapshot.get();
        let spent = std::mem::take(&mut state.spent);
        if !state.is_as_recorded() || !snapshots.is_due(since, spent) {
            return;
        }
        // If the database is behind with those before, this one waits for the next event.
        let Ok(permit) = self.snapshots.saving.clone().try_acquire_owned() else { return };
        match self.new_snapshot(stream, snapshots, &state.loaded) {
            Ok(snapshot) => {
                state.snapshot_taken(snapshot.state.len());
                let backend = self.backend.clone();
                tokio::spawn(async move {
                    let stream = snapshot.stream.clone();
                    if let Err(error) = backend.save_snapshot(snapshot).await {
                        tracing::warn!(%stream, %error, "snapshot not kept; loads fold more events");
                    }
                    drop(permit);
                });
            }
            Err(error) => tracing::warn!(%stream, %error, "no snapshot taken"),
        }
    }

    fn new_snapshot<A: Aggregate>(
        &self,
        stream: &StreamId,
        snapshots: &Snapshots<A>,
        loaded: &Loaded<A>,
    ) -> Result<NewSnapshot, Error> {
        let encode = snapshots.encode;
        let state = encode(&loaded.state)
            .map_err(|source| Error::Encode { what: format!("the state of {stream}"), source })?;
        Ok(NewSnapshot {
            stream: stream.clone(),
            kind: self.snapshots.kind(snapshots),
            version: loaded.version,
            position: loaded.position,
            state,
            keep: snapshots.keep,
        })
    }

    /// Folds what the log holds of some streams and is not in their states yet. `None` stands for
    /// a state that begins with a snapshot or nothing. Of a deleted stream nothing is left in the state;
    /// an archived one is an error, unless it goes over archived events.
    async fn fold<'a, A: Aggregate>(
        &self,
        session: Option<&dyn Session>,
        targets: Vec<(&'a StreamId, &'a mut Option<State<A>>)>,
        up_to: UpTo,
    ) -> Result<Vec<&'a mut State<A>>, Error> {
        let kind = A::SNAPSHOTS.as_ref().map(|snapshots| self.snapshots.kind(snapshots));
        let mut waiting: Vec<_> = targets
            .into_iter()
            .map(|(stream, state)| {
                let state = state.get_or_insert_with(State::initial);
                let snapshot = kind.filter(|_| state.loaded.version == Version::NONE);
                (stream, state, snapshot)
            })
            .collect();
        let mut done = Vec::with_capacity(waiting.len());
        while !waiting.is_empty() {
            let loads = waiting.iter().map(|(stream, state, snapshot)| Load {
                stream: (*stream).clone(),
                after: state.loaded.version,
                up_to_version: up_to.version,
                up_to_position: up_to.position,
                snapshot: *snapshot,
                archived: up_to.archived,
            });
            let parts = match session {
                Some(session) => session.load(loads.collect()).await?,
                None => self.backend.load(loads.collect()).await?,
            };
            for ((stream, state, _), part) in std::mem::take(&mut waiting).into_iter().zip(parts) {
                match part.state {
                    StreamState::Deleted => {
                        *state = State::initial();
                        done.push(state);
                        continue;
                    }
                    StreamState::Archived if up_to.archived == Archived::Excluded => {
                        return Err(part.state.refusal(stream.clone()));
                    }
                    StreamState::Live | StreamState::Archived => {}
                }
                if part.is_behind {
                    // The log has lost events, by a failover for example: others take their place.
                    *state = State::initial();
                    waiting.push((stream, state, kind));
                    continue;
                }
                let usable = match (&part.snapshot, &A::SNAPSHOTS) {
                    (Some(stored), Some(snapshots)) => restore(state, stream, stored, snapshots),
                    _ => true,
                };
                if !usable {
                    // Once more, from the first event.
                    waiting.push((stream, state, None));
                    continue;
                }
                let more = part.more;
                state.fold(stream, part)?;
                if more {
                    waiting.push((stream, state, None));
                } else {
                    done.push(state);
                }
            }
        }
        Ok(done)
    }
}

/// Starts from a snapshot; false if it cannot be read.
fn restore<A: Aggregate>(
    state: &mut State<A>,
    stream: &StreamId,
    stored: &StoredSnapshot,
    snapshots: &Snapshots<A>,
) -> bool {
    let decode = snapshots.decode;
    match decode(&stored.state) {
        Ok(decoded) => {
            let (version, position) = (stored.version, stored.position);
            state.restore(Loaded { state: decoded, version, position }, stored.state.len());
            true
        }
        Err(error) => {
            tracing::warn!(%stream, version = %stored.version, %error,
                "snapshot cannot be read; folding all events, and the next snapshot replaces it");
            false
        }
    }
}

/// What a store needs to take snapshots.
pub(super) struct Saving {
    /// How many may be on their way to the database.
    saving: Arc<Semaphore>,
    /// What was computed once of each type of aggregate.
    kinds: RwLock<HashMap<TypeId, SnapshotKind>>,
}

impl Saving {
    pub(super) fn new() -> Self {
        Self { saving: Arc::new(Semaphore::new(64)), kinds: RwLock::default() }
    }

    fn kind<A: Aggregate>(&self, snapshots: &Snapshots<A>) -> SnapshotKind {
        let id = TypeId::of::<A>();
        if let Some(kind) = self.kinds.read().unwrap_or_else(PoisonError::into_inner).get(&id) {
            return *kind;
        }
        let kind = snapshots.kind();
        self.kinds.write().unwrap_or_else(PoisonError::into_inner).insert(id, kind);
        kind
    }
}
