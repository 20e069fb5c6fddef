//! What a store must be able to do; [`EventStore`](crate::EventStore) builds all else on it.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use bytes::Bytes;
use chrono::{DateTime, Utc};
use uuid::Uuid;

use crate::{
    append::{ExpectedVersion, NewEvent},
    command::Fingerprint,
    error::Error,
    event::{Payload, Recorded},
    ids::{Position, StreamId, Version},
    life::{StreamInfo, StreamState},
    postgres::{Client, SqlProjection},
    query::{Archived, Direction},
    snapshot::SnapshotKind,
};

/// An append, checked and ready to be recorded as a whole or not at all.
#[derive(Clone, Debug, Default)]
pub(crate) struct Request {
    /// Each stream once.
    pub(crate) streams: Vec<(StreamId, ExpectedVersion)>,
    /// In the order of their positions, each with the index of its stream.
    pub(crate) events: Vec<(usize, NewEvent)>,
    /// The idempotency keys whose outcomes are recorded with it.
    pub(crate) keys: Vec<KeyRecord>,
}

/// An idempotency key and the part of a request that is its outcome.
#[derive(Clone, Debug)]
pub(crate) struct KeyRecord {
    pub(crate) key: String,
    pub(crate) fingerprint: Fingerprint,
    /// The index of its stream.
    pub(crate) stream: usize,
    /// How many events of its stream come up to and with its last one.
    pub(crate) number: usize,
    /// How many events of the request come up to and with its last one; 0 if it has none.
    pub(crate) last: usize,
    /// How many events it has.
    pub(crate) events: usize,
}

/// What came of a request.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Outcome {
    /// It is recorded: the versions of its streams before it, and its first position.
    Recorded { before: Vec<Version>, first: Position },
    /// A stream is not at the expected version: its index, and its version.
    Conflict { stream: usize, actual: Version },
    /// One of its idempotency keys is recorded already.
    KeyTaken,
    /// A stream that it writes or rests on is deleted or archived: its index, and its state.
    NotLive { stream: usize, state: StreamState },
}

/// The recorded outcome of an idempotency key.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct KnownKey {
    pub(crate) key: String,
    pub(crate) fingerprint: Vec<u8>,
    pub(crate) version: Version,
    pub(crate) position: Position,
    pub(crate) events: usize,
}

/// What to load of one stream, to be folded.
#[derive(Clone, Debug)]
pub(crate) struct Load {
    pub(crate) stream: StreamId,
    pub(crate) after: Version,
    pub(crate) up_to_version: Version,
    pub(crate) up_to_position: Position,
    /// Start from the latest snapshot of this kind that lies in the range, if there is one.
    pub(crate) snapshot: Option<SnapshotKind>,
    /// Whether it is loaded also if it is archived.
    pub(crate) archived: Archived,
}

/// What was loaded of a stream: a snapshot, and the first events after it. Of one that is deleted, or
/// archived and not to be loaded then, only the state.
#[derive(Clone, Debug, Default)]
pub(crate) struct Part {
    /// The stream's.
    pub(crate) state: StreamState,
    pub(crate) snapshot: Option<StoredSnapshot>,
    pub(crate) events: Vec<StoredEvent>,
    /// There may be more after the last of them.
    pub(crate) more: bool,
    /// The stream does not reach the version after which it was to be loaded.
    pub(crate) is_behind: bool,
}

/// What a fold needs of an event.
#[derive(Clone, Debug)]
pub(crate) struct StoredEvent {
    pub(crate) version: Version,
    pub(crate) position: Position,
    pub(crate) event_type: Arc<str>,
    pub(crate) schema_version: u32,
    pub(crate) payload: Payload,
}

/// A state as it is stored.
#[derive(Clone, Debug)]
pub(crate) struct StoredSnapshot {
    pub(crate) version: Version,
    pub(crate) position: Position,
    pub(crate) state: Bytes,
}

/// A state to be stored.
#[derive(Clone, Debug)]
pub(crate) struct NewSnapshot {
    pub(crate) stream: StreamId,
    pub(crate) kind: SnapshotKind,
    pub(crate) version: Version,
    pub(crate) position: Position,
    pub(crate) state: Vec<u8>,
    /// How many of the latest of the stream stay.
    pub(crate) keep: Option<u32>,
}

/// A page of the log of the whole store, or of one stream.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Page<'a> {
    pub(crate) after: Position,
    pub(crate) up_to: Position,
    pub(crate) limit: usize,
    /// No further event once payloads of so many bytes are read.
    pub(crate) bytes: usize,
    pub(crate) direction: Direction,
    /// Only events of this stream.
    pub(crate) stream: Option<&'a StreamId>,
    /// Only events after this version of their stream.
    pub(crate) after_version: Version,
    /// Only events up to this version of their stream.
    pub(crate) up_to_version: Version,
    /// Only events of these categories; all, if `None`.
    pub(crate) categories: Option<&'a [String]>,
    /// Only events of these types; all, if `None`.
    pub(crate) event_types: Option<&'a [String]>,
    /// Only events with this correlation id; all, if `None`.
    pub(crate) correlation_id: Option<&'a str>,
    /// Only the event with this id; all, if `None`.
    pub(crate) event_id: Option<Uuid>,
    /// Archived streams are left out of a page of the log; as a page of their own they are refused.
    pub(crate) archived: Archived,
}

impl Page<'_> {
    /// All events after a position and up to another, at most so many.
    pub(crate) const fn log(after: Position, up_to: Position, limit: usize) -> Self {
        Self {
            after,
            up_to,
            limit,
            bytes: usize::MAX,
            direction: Direction::Forward,
            stream: None,
            after_version: Version::NONE,
            up_to_version: Version::new(i64::MAX),
            categories: None,
            event_types: None,
            correlation_id: None,
            event_id: None,
            archived: Archived::Excluded,
        }
    }
}

#[async_trait]
pub(crate) trait Backend: Send + Sync {
    /// Records a request.
    async fn append(&self, request: Request) -> Result<Outcome, Error>;

    /// The next part of each of some streams.
    async fn load(&self, loads: Vec<Load>) -> Result<Vec<Part>, Error>;

    /// Keeps a snapshot, in place of those of another shape.
    async fn save_snapshot(&self, snapshot: NewSnapshot) -> Result<(), Error>;

    /// Begins a unit: what it reads and writes shares one transaction.
    async fn begin(&self) -> Result<Box<dyn Session>, Error>;

    /// A page of the log, by position, or of a stream, by version.
    async fn page(&self, page: Page<'_>) -> Result<Vec<Recorded>, Error>;

    /// The safe position, and then a page of the log up to it, in the order of positions.
    async fn look(&self, page: Page<'_>) -> Result<(Position, Vec<Recorded>), Error> {
        look_in_turn(self, page).await
    }

    /// The version and the state of a stream; `None` if it has no events.
    async fn stream_info(&self, stream: &StreamId) -> Result<Option<StreamInfo>, Error>;

    /// Brings a stream that has events into a state, and returns its version.
    async fn change_state(
        &self,
        stream: &StreamId,
        expected: ExpectedVersion,
        state: StreamState,
    ) -> Result<Version, Error>;

    /// Removes the idempotency keys that are older; returns how many.
    async fn remove_keys(&self, older_than: Duration) -> Result<u64, Error>;

    /// The outcomes recorded for those of the keys that are known.
    async fn known_keys(&self, keys: &[String]) -> Result<Vec<KnownKey>, Error>;

    /// Up to where the log is complete and stays as it is.
    async fn safe_position(&self) -> Result<Position, Error>;

    /// The last position that was given to an append, also to one in flight.
    async fn last_position(&self) -> Result<Position, Error>;

    /// The position as of a time.
    async fn position_at(
        &self,
        time: DateTime<Utc>,
        clock: Option<DateTime<Utc>>,
    ) -> Result<Position, Error>;

    /// Takes no more appends, and waits until those accepted are done, at most for `limit`; returns
    /// how many were given up.
    async fn close(&self, limit: Option<Duration>) -> usize;
}

/// [`Backend::look`], first for the safe position and then for the page.
pub(crate) async fn look_in_turn(
    backend: &(impl Backend + ?Sized),
    page: Page<'_>,
) -> Result<(Position, Vec<Recorded>), Error> {
    let safe = backend.safe_position().await?;
    let page = Page { up_to: page.up_to.min(safe), ..page };
    let events = if page.after < page.up_to { backend.page(page).await? } else { Vec::new() };
    Ok((safe, events))
}

/// A unit of work under way. Dropping it leaves nothing behind.
#[async_trait]
pub(crate) trait Session: Send + Sync {
    /// As [`Backend::load`], as the unit's transaction sees it.
    async fn load(&self, loads: Vec<Load>) -> Result<Vec<Part>, Error>;

    /// As [`Backend::known_keys`].
    async fn known_keys(&self, keys: &[String]) -> Result<Vec<KnownKey>, Error>;

    /// The connection, in the unit's transaction.
    fn sql(&self) -> Result<&Client, Error>;

    /// Records a request, projects it inline and commits. Unless the outcome is
    /// [`Outcome::Recorded`], nothing is left behind. A request without events only holds its streams
    /// to their versions.
    async fn commit(
        self: Box<Self>,
        request: Request,
        inline: &[Arc<dyn SqlProjection>],
    ) -> Result<Outcome, Error>;

    /// Ends the transaction and leaves nothing behind.
    async fn rollback(self: Box<Self>) -> Result<(), Error>;
}
