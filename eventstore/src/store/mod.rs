//! The event store: one API over PostgreSQL and, for unit tests, memory.

mod ahead;
mod backoff;
mod cache;
mod check;
mod cursor;
mod execute;
mod life;
mod load;
mod lot;
mod observed;
mod options;
mod read;
mod state;
mod transact;
mod unit;

use std::{sync::Arc, time::Duration};

use chrono::{DateTime, Utc};
use sha2::{Digest, Sha256};
use tokio::task::JoinError;
use tokio_util::task::AbortOnDropHandle;
use tower::retry::budget::TpsBudget;

pub(crate) use self::options::Migrating;
use self::{cache::Cache, load::Saving, observed::Observed};
pub use self::{
    cursor::Cursor,
    load::AsOf,
    options::Options,
    unit::{Decided, UnitCommitted, UnitOfWork},
};
use crate::{
    append::{Append, Appended},
    backend::{Backend, KeyRecord, KnownKey, Outcome, Page, Request},
    clock::to_micros,
    command::Fingerprint,
    error::Error,
    ids::{Position, StreamId, Version},
    memory::Memory,
    postgres::{Database, InFlight, SqlProjection, Use},
    query::Archived,
};

/// 4714-11-24 BC, where PostgreSQL's time begins.
const FIRST_SECOND: i64 = -210_866_803_200;

/// An append-only store of events.
///
/// It is cheap to clone; clones share connections. All its methods take `&self` and may be called
/// from many tasks at once. Appends of all tasks travel together (group commit).
///
/// ```no_run
/// # async fn run() -> Result<(), annals_eventstore::Error> {
/// use annals_eventstore::{EventStore, Position};
/// use futures::TryStreamExt;
///
/// let store = EventStore::connect("postgres://localhost/app").await?;
/// let mut events = std::pin::pin!(store.read_all(Position::START));
/// while let Some(event) = events.try_next().await? {
///     println!("{} {} {}", event.position, event.stream, event.event_type);
/// }
/// # Ok(()) }
/// ```
#[derive(Clone)]
pub struct EventStore {
    backend: Arc<dyn Backend>,
    database: Option<Database>,
    options: Arc<Options>,
    /// What every append must be seen by before it commits.
    inline: Arc<[Arc<dyn SqlProjection>]>,
    cache: Cache,
    /// How much may be tried again when the backend fails, for the store and its clones together.
    retries: Arc<TpsBudget>,
    snapshots: Arc<Saving>,
    /// What stands before the backend, in tests.
    #[cfg(feature = "faults")]
    faults: Option<crate::testkit::faults::Faults>,
    /// Removes old idempotency keys while there is a store.
    _removing: Option<Arc<AbortOnDropHandle<()>>>,
}

impl std::fmt::Debug for EventStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("EventStore").field("database", &self.database).finish_non_exhaustive()
    }
}

impl EventStore {
    /// Connects with the default options and brings the schema up to date.
    ///
    /// # Errors
    /// [`Error::InvalidUrl`], [`Error::Connect`], [`Error::SchemaTooNew`], or a failed migration.
    pub async fn connect(url: &str) -> Result<Self, Error> {
        Options::default().connect(url).await
    }

    /// Options to change before connecting.
    pub fn options() -> Options {
        Options::default()
    }

    /// A store in memory, with the same behaviour, for unit tests. It is gone when dropped.
    pub fn in_memory() -> Self {
        Options::default().in_memory()
    }

    async fn open(url: &str, options: Options) -> Result<Self, Error> {
        let database = Database::connect(url, &options).await?;
        let backend: Arc<dyn Backend> = Arc::new(database.clone());
        let removing = options.idempotency_retention.map(|retention| {
            let removing = life::remove_old_keys(backend.clone(), retention);
            Arc::new(AbortOnDropHandle::new(tokio::spawn(removing)))
        });
        Ok(Self { _removing: removing, ..Self::over(backend, Some(database), options) })
    }

    fn open_in_memory(options: Options) -> Self {
        let memory = Memory::new(options.clock.clone(), options.idempotency_retention);
        Self::over(Arc::new(memory), None, options)
    }

    fn over(backend: Arc<dyn Backend>, database: Option<Database>, options: Options) -> Self {
        let cache = Cache::new(options.cache_bytes);
        let snapshots = Arc::new(Saving::new());
        let window = Duration::from_secs(10);
        let retries = TpsBudget::new(window, options.retries_per_second, options.retry_share);
        let (options, inline) = (Arc::new(options), Arc::default());
        Self {
            backend,
            database,
            options,
            cache,
            retries: Arc::new(retries),
            snapshots,
            inline,
            #[cfg(feature = "faults")]
            faults: None,
            _removing: None,
        }
    }

    /// The same store around another backend.
    #[cfg(feature = "conformance")]
    pub(crate) fn with_backend(
        self,
        wrap: impl FnOnce(Arc<dyn Backend>) -> Arc<dyn Backend>,
    ) -> Self {
        Self { backend: wrap(self.backend), ..self }
    }

    /// The database behind this store, for the read side and for SQL of the program's own.
    ///
    /// # Errors
    /// [`Error::NeedsPostgres`] if the store is in memory.
    pub fn database(&self) -> Result<&Database, Error> {
        self.database.as_ref().ok_or(Error::NeedsPostgres { what: "this operation" })
    }

    /// The same store, which reads on the connections of another use, so that it does not wait for
    /// those that take all connections of this one. In memory there is no difference.
    #[must_use]
    pub fn using(&self, purpose: Use) -> Self {
        let Some(database) = &self.database else { return self.clone() };
        let database = database.using(purpose);
        let backend: Arc<dyn Backend> = Arc::new(database.clone());
        #[cfg(feature = "faults")]
        let backend = self.faults.iter().fold(backend, |backend, faults| faults.over(backend));
        Self { backend, database: Some(database), ..self.clone() }
    }

    /// The same store, whose backend is disturbed.
    #[cfg(feature = "faults")]
    pub(crate) fn behind(&self, faults: crate::testkit::faults::Faults) -> Self {
        // What aggregates are cached as is the same behind any faults.
        let backend = faults.over(self.backend.clone());
        Self { backend, faults: Some(faults), ..self.clone() }
    }

    /// Shuts the store down, with all its clones: no more appends are accepted, those accepted are
    /// recorded or fail, and then the connections are closed. Whatever is asked of it afterwards fails
    /// with [`Error::Closed`].
    ///
    /// It takes as long as the appends do, each at most its
    /// [`append_timeout`](Options::append_timeout). A connection that is in use elsewhere, for a query
    /// say, is closed when it is given back. Closing twice is no error. Dropping the store with all its
    /// clones does the same in the background. Cancellation safe: it goes on closing, and can be
    /// waited for again.
    pub async fn close(&self) {
        self.backend.close(None).await;
    }

    /// The same, and gives up after `limit` what is not done. Returns how many accepted appends it
    /// gave up: those not sent failed with [`Error::Closed`] and are surely not recorded, the others
    /// with [`Error::Indeterminate`].
    pub async fn close_within(&self, limit: Duration) -> usize {
        self.backend.close(Some(limit)).await
    }

    /// Appends events to one or several streams, all or nothing.
    ///
    /// An append without events is an error. Not cancellation safe: if the future is dropped, the
    /// append may still be recorded; with an idempotency key, appending again settles it.
    ///
    /// # Errors
    /// [`Error::Conflict`] if a stream is not as expected, [`Error::StreamDeleted`] or
    /// [`Error::StreamArchived`] if it is not in use, [`Error::KeyReused`],
    /// [`Error::InvalidAppend`], [`Error::ClockWentBack`], [`Error::Inline`] or
    /// [`Error::BypassesInline`] where projections run inline, [`Error::Indeterminate`] if the
    /// connection was lost meanwhile, or a failure of the database. With [`Error::Overloaded`],
    /// [`Error::TimedOut`], [`Error::Locked`] and [`Error::Closed`] it is surely not recorded.
    pub async fn append(&self, append: Append) -> Result<Appended, Error> {
        let request = self.request(append)?;
        let key = request.keys.first().map(|key| key.key.clone());
        match self.record(request.clone()).await? {
            Outcome::Recorded { before, first } => Ok(appended(&request, &before, first)),
            Outcome::Conflict { stream, actual } => {
                let (stream, expected) = request.streams[stream].clone();
                Err(Error::Conflict { stream, expected, actual })
            }
            Outcome::NotLive { stream, state } => {
                Err(state.refusal(request.streams[stream].0.clone()))
            }
            Outcome::KeyTaken => {
                let known = self.backend.known_keys(key.as_slice()).await?;
                self.replay(&request, known).await
            }
        }
    }

    /// Up to where the log is complete: no event will ever appear at or below this position.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn safe_position(&self) -> Result<Position, Error> {
        self.backend.safe_position().await
    }

    /// The appends in flight of all processes, in the order of their positions: the first is the one
    /// that readers of the log wait for. None in memory.
    ///
    /// An append is soon over, and holds back nobody below its positions. One that stays is a
    /// transaction that somebody left open around an append, or a connection that died unnoticed;
    /// `select pg_terminate_backend(pid)` ends it. A store that finds its readers held back for longer
    /// than [`held_back_warning`](Options::held_back_warning) says so in a warning.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn in_flight(&self) -> Result<Vec<InFlight>, Error> {
        match &self.database {
            Some(database) => database.in_flight().await,
            None => Ok(Vec::new()),
        }
    }

    /// The position as of a time: that of the last event recorded at or before it.
    ///
    /// The answer is final: it waits for the appends in flight that could still record an earlier
    /// event. Only where appends bring times of their own (see [`Clock`](crate::Clock)) can an answer
    /// for a time after the last event's still change, by an append that brings such a time.
    ///
    /// # Errors
    /// [`Error::Future`] if that time is not over yet.
    pub async fn position_at(&self, time: DateTime<Utc>) -> Result<Position, Error> {
        // Before the first time that PostgreSQL can tell there is nothing, as at that time.
        let time = DateTime::from_timestamp(FIRST_SECOND, 0).map_or(time, |first| time.max(first));
        self.backend.position_at(to_micros(time), self.options.clock.supplied_now()).await
    }

    async fn record(&self, request: Request) -> Result<Outcome, Error> {
        let brought = request.events.first().and_then(|(_, event)| event.recorded_at);
        let given = brought.or_else(|| self.options.clock.supplied_now());
        let recorded = Observed::new(&request).through(async {
            if unit::concerns(&self.inline, &request) {
                self.record_inline(request).await
            } else {
                self.backend.append(request).await
            }
        });
        recorded.await.map_err(|error| match (error, given) {
            (Error::ClockWentBack { last, .. }, Some(given)) => {
                Error::ClockWentBack { given, last }
            }
            (error, _) => error,
        })
    }

    /// Checks an append.
    fn request(&self, append: Append) -> Result<Request, Error> {
        append.check_streams()?;
        let Append { streams, mut events, idempotency_key } = append;
        let mut check = check::Check::new(&self.options);
        for (_, event) in &mut events {
            check.event(event)?;
        }
        let keys = match idempotency_key {
            None => Vec::new(),
            Some(key) => {
                check::idempotency_key(&key)?;
                vec![KeyRecord {
                    key,
                    fingerprint: content(&streams, &events),
                    stream: 0,
                    number: events.iter().filter(|(stream, _)| *stream == 0).count(),
                    last: events.len(),
                    events: events.len(),
                }]
            }
        };
        Ok(Request { streams, events, keys })
    }

    /// What an append under a known key returns: what was recorded, if it is the same append.
    async fn replay(&self, request: &Request, known: Vec<KnownKey>) -> Result<Appended, Error> {
        let (record, known) = match (request.keys.first(), known.into_iter().next()) {
            (Some(record), Some(known)) => (record, known),
            // It was removed in between.
            _ => return Err(Error::KeyInFlight),
        };
        if known.fingerprint != record.fingerprint {
            return Err(Error::KeyReused { key: known.key });
        }
        let after = Position::new(known.position.get() - known.events as i64);
        // Its streams may be archived since.
        let archived = Archived::Included;
        let page = Page { archived, ..Page::log(after, known.position, known.events) };
        let mut versions: Vec<_> =
            request.streams.iter().map(|(stream, _)| (stream.clone(), Version::NONE)).collect();
        for event in self.backend.page(page).await? {
            for (stream, version) in &mut versions {
                if *stream == event.stream {
                    *version = event.version;
                }
            }
        }
        Ok(Appended {
            versions,
            first_position: after.plus(1),
            last_position: known.position,
            replayed: true,
        })
    }
}

fn appended(request: &Request, before: &[Version], first: Position) -> Appended {
    let versions = std::iter::zip(&request.streams, before).enumerate();
    Appended {
        versions: versions
            .map(|(index, ((stream, _), before))| {
                let events = request.events.iter().filter(|(stream, _)| *stream == index).count();
                (stream.clone(), before.plus(events))
            })
            .collect(),
        first_position: first,
        last_position: Position::new(first.get() + request.events.len() as i64 - 1),
        replayed: false,
    }
}

/// A payload in the one form that all spellings of its content share: no white space, sorted keys.
fn canonical(payload: &crate::Payload) -> Vec<u8> {
    serde_json::from_slice::<serde_json::Value>(payload.as_bytes())
        .and_then(|value| serde_json::to_vec(&value))
        .unwrap_or_else(|_| payload.as_bytes().to_vec())
}

/// Binds an idempotency key to the streams, types and payloads of an append.
fn content(
    streams: &[(StreamId, crate::ExpectedVersion)],
    events: &[(usize, crate::NewEvent)],
) -> Fingerprint {
    let mut hash = Sha256::new();
    for (index, event) in events {
        let stream = streams[*index].0.to_string();
        for part in [stream.as_bytes(), event.event_type.as_bytes()] {
            hash.update((part.len() as u64).to_le_bytes());
            hash.update(part);
        }
        hash.update(canonical(&event.payload));
    }
    hash.finalize().into()
}

/// What a task of the store's own came to. A panic in it, of an aggregate for example, goes on here.
fn outcome_of<T>(task: Result<Result<T, Error>, JoinError>) -> Result<T, Error> {
    match task {
        Ok(outcome) => outcome,
        Err(failed) => match failed.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            // The runtime is shutting down.
            Err(_) => Err(Error::Closed),
        },
    }
}
