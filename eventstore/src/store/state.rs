//! A state that is being worked with: what is folded from the log, and what is decided on top. Pure.

use std::time::Duration;

use crate::{
    aggregate::{Aggregate, Loaded},
    backend::{Part, StoredEvent},
    error::Error,
    event::Event,
    ids::{Position, StreamId, Version},
};

/// The most that a state counts for in the cache when nothing better is known than its history: of a
/// long one, little may be left in the state.
const MOST_BY_HISTORY: usize = 256 * 1024;

pub(super) struct State<A: Aggregate> {
    /// As recorded in the log, unless decided events have been applied.
    pub(super) loaded: Loaded<A>,
    /// True if it was read, or compared with the log, on behalf of whoever holds it.
    pub(super) is_current: bool,
    /// How long it took to load it, if that is known and no snapshot was considered for it yet.
    pub(super) spent: Duration,
    /// The version of the last snapshot that is known.
    pub(super) snapshot: Version,
    /// Decided and not recorded.
    decided: Vec<A::Event>,
    /// How many of them are applied: a later decision rests on them.
    applied: usize,
    /// How many bytes of payloads it was folded from.
    folded: usize,
    /// How large its last snapshot is.
    encoded: Option<usize>,
}

impl<A: Aggregate> State<A> {
    pub(super) fn initial() -> Self {
        Self {
            loaded: Loaded::initial(),
            is_current: false,
            spent: Duration::ZERO,
            snapshot: Version::NONE,
            decided: Vec::new(),
            applied: 0,
            folded: 0,
            encoded: None,
        }
    }

    /// A copy of what is recorded, where the state can be copied.
    pub(super) fn duplicate(&self) -> Option<Self> {
        if !self.is_as_recorded() {
            return None;
        }
        let Loaded { state, version, position } = &self.loaded;
        let state = state.duplicate()?;
        Some(Self {
            loaded: Loaded { state, version: *version, position: *position },
            is_current: false,
            spent: Duration::ZERO,
            snapshot: self.snapshot,
            decided: Vec::new(),
            applied: 0,
            folded: self.folded,
            encoded: self.encoded,
        })
    }

    /// How many events are decided and not recorded.
    pub(super) fn decided(&self) -> usize {
        self.decided.len()
    }

    /// The version that it has once what is decided is recorded.
    pub(super) fn version(&self) -> Version {
        self.loaded.version.plus(self.decided.len())
    }

    /// The state that the next decision rests on.
    pub(super) fn bring_up(&mut self) -> &A {
        for event in &self.decided[self.applied..] {
            self.loaded.state.apply(event);
        }
        self.applied = self.decided.len();
        &self.loaded.state
    }

    /// Adds what a decision led to, in so many bytes.
    pub(super) fn decide(&mut self, events: Vec<A::Event>, bytes: usize) {
        self.folded += bytes;
        self.decided.extend(events);
    }

    /// Forgets what was decided. False if it cannot be taken back out of the state.
    #[must_use]
    pub(super) fn forget_decided(&mut self) -> bool {
        let can = self.is_as_recorded();
        self.decided.clear();
        can
    }

    /// Notes that what was decided is recorded, the last of it at this position.
    pub(super) fn recorded(&mut self, last: Position) {
        if self.decided.is_empty() {
            return;
        }
        let version = self.version();
        let _ = self.bring_up();
        self.loaded.version = version;
        self.loaded.position = last;
        self.decided.clear();
        self.applied = 0;
    }

    /// True if the state holds nothing that is not recorded.
    pub(super) fn is_as_recorded(&self) -> bool {
        self.applied == 0
    }

    /// Folds a part of the stream.
    pub(super) fn fold(&mut self, stream: &StreamId, part: Part) -> Result<(), Error> {
        for event in part.events {
            self.fold_one(stream, &event)?;
        }
        Ok(())
    }

    fn fold_one(&mut self, stream: &StreamId, stored: &StoredEvent) -> Result<(), Error> {
        let events = A::Event::decode(&stored.event_type, stored.schema_version, &stored.payload)
            .map_err(|source| Error::Decode {
            stream: stream.clone(),
            version: stored.version,
            event_type: stored.event_type.to_string(),
            schema_version: stored.schema_version,
            source,
        })?;
        for event in events {
            self.loaded.state.apply(&event);
        }
        // Also of an event that is read as none.
        self.loaded.version = stored.version;
        self.loaded.position = stored.position;
        self.folded += stored.payload.as_bytes().len();
        Ok(())
    }

    /// Starts from a snapshot of so many bytes.
    pub(super) fn restore(&mut self, loaded: Loaded<A>, bytes: usize) {
        self.snapshot = loaded.version;
        self.loaded = loaded;
        self.encoded = Some(bytes);
    }

    /// Notes that a snapshot of so many bytes was taken of it.
    pub(super) fn snapshot_taken(&mut self, bytes: usize) {
        self.snapshot = self.loaded.version;
        self.encoded = Some(bytes);
    }

    /// About how many bytes it holds. A state takes more room in memory than its JSON.
    pub(super) fn weight(&self) -> usize {
        let content = match self.encoded {
            Some(bytes) => 2 * bytes,
            None => self.folded.min(MOST_BY_HISTORY),
        };
        size_of::<Self>() + content
    }
}
