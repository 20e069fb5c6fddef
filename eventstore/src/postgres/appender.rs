//! Group commit: everything that waits to be appended goes out as one statement and one commit.
//!
//! Batches form by themselves, without lingering: while one is on its way, the next one gathers.
//! Every append in a batch has its own outcome. A batch that fails as a whole, for a reason that is
//! some append's own, is sent again one by one, so that a bad append fails alone.

use std::{
    collections::{HashSet, VecDeque},
    sync::Arc,
    time::Duration,
};

use chrono::{DateTime, Utc};
use deadpool_postgres::Pool;
use tokio::sync::{Mutex, Notify, mpsc, oneshot};
use tokio_postgres::{
    error::SqlState,
    types::{IsNull, ToSql, Type, accepts, private::BytesMut, to_sql_checked},
};
use uuid::Uuid;

use super::{Schema, channel, database_error, is_lost, is_transient};
use crate::{
    append::ExpectedVersion,
    backend::{Outcome, Request},
    clock::{Clock, WentBack},
    error::Error,
    ids::{Position, Version},
    life::StreamState,
    store::Options,
};

/// How much one statement carries at most.
const MAX_APPENDS: usize = 512;
const MAX_EVENTS: usize = 8192;
const MAX_BYTES: usize = 32 * 1024 * 1024;
/// How many appends wait before the next caller has to.
const QUEUE: usize = 4096;
/// How often an append is tried that loses to others through no fault of its own.
const ATTEMPTS: usize = 5;
/// At most one nudge in this time: a NOTIFY takes a lock that all of the server's share.
const NUDGE_INTERVAL: Duration = Duration::from_millis(5);

/// The door to the tasks that append.
pub(super) struct Appender {
    queue: mpsc::Sender<Pending>,
}

struct Pending {
    request: Request,
    reply: oneshot::Sender<Result<Outcome, Error>>,
}

impl Appender {
    /// Starts the tasks. They end when the appender is dropped and what was queued is done.
    pub(super) fn start(pool: Pool, schema: &Schema, options: &Options) -> Self {
        let (queue, receiver) = mpsc::channel(QUEUE);
        let gathering = Arc::new(Mutex::new(Gathering { receiver, deferred: VecDeque::new() }));
        let nudge = Arc::new(Notify::new());
        let writer = Writer {
            pool: pool.clone(),
            statement: schema.sql(include_str!("sql/append.sql")).into(),
            nudge: nudge.clone(),
            // Times that callers supply rise within an append, not from one append to the next.
            max_appends: if options.clock.is_supplied() { 1 } else { MAX_APPENDS },
            clock: options.clock.clone(),
        };
        for _ in 0..options.writers {
            let (writer, gathering) = (writer.clone(), gathering.clone());
            tokio::spawn(async move {
                loop {
                    let batch = gathering.lock().await.next(writer.max_appends).await;
                    let Some(batch) = batch else { break };
                    writer.send(batch).await;
                }
            });
        }
        tokio::spawn(announce(pool, channel(schema), nudge, Arc::downgrade(&gathering)));
        Self { queue }
    }

    /// Queues a request and waits for its outcome.
    ///
    /// Dropping the future does not take the request back: it may still be recorded.
    pub(super) async fn append(&self, request: Request) -> Result<Outcome, Error> {
        let (reply, outcome) = oneshot::channel();
        self.queue.send(Pending { request, reply }).await.map_err(|_| Error::Closed)?;
        outcome.await.map_err(|_| Error::Closed)?
    }
}

/// What waits to be sent.
struct Gathering {
    receiver: mpsc::Receiver<Pending>,
    /// Appends whose stream or key was in an earlier batch already; they go first into the next.
    deferred: VecDeque<Pending>,
}

impl Gathering {
    /// The next batch: no two of its appends share a stream or a key. `None` at the end.
    async fn next(&mut self, max_appends: usize) -> Option<Vec<Pending>> {
        let mut batch = Batch::default();
        for pending in std::mem::take(&mut self.deferred) {
            if batch.appends.len() == max_appends {
                self.deferred.push_back(pending);
            } else {
                batch.add(pending, &mut self.deferred);
            }
        }
        if batch.appends.is_empty() {
            batch.add(self.receiver.recv().await?, &mut self.deferred);
        }
        while batch.appends.len() < max_appends
            && batch.events < MAX_EVENTS
            && batch.bytes < MAX_BYTES
            && self.deferred.len() < MAX_APPENDS
        {
            match self.receiver.try_recv() {
                Ok(pending) => batch.add(pending, &mut self.deferred),
                Err(_) => break,
            }
        }
        Some(batch.appends)
    }
}

#[derive(Default)]
struct Batch {
    appends: Vec<Pending>,
    events: usize,
    bytes: usize,
    taken: HashSet<String>,
}

impl Batch {
    fn add(&mut self, pending: Pending, deferred: &mut VecDeque<Pending>) {
        // A stream's name has no line break, so it is never taken for a key.
        let names = || {
            let streams = pending.request.streams.iter().map(|(stream, _)| stream.to_string());
            let keys = pending.request.keys.iter().map(|key| format!("\n{}", key.key));
            streams.chain(keys)
        };
        let free = names().all(|name| !self.taken.contains(&name));
        // Also the names of a deferred append: a later one must not overtake it.
        self.taken.extend(names());
        if free {
            self.events += pending.request.events.len();
            let events = pending.request.events.iter();
            self.bytes += events.map(|(_, event)| event.payload.as_bytes().len()).sum::<usize>();
            self.appends.push(pending);
        } else {
            deferred.push_back(pending);
        }
    }
}

#[derive(Clone)]
struct Writer {
    pool: Pool,
    statement: Arc<str>,
    nudge: Arc<Notify>,
    max_appends: usize,
    clock: Clock,
}

impl Writer {
    async fn send(&self, batch: Vec<Pending>) {
        let requests: Vec<_> = batch.iter().map(|pending| &pending.request).collect();
        match self.record(&requests).await {
            Ok(outcomes) => {
                for (pending, outcome) in batch.into_iter().zip(outcomes) {
                    // A caller that went away does not need its answer.
                    drop(pending.reply.send(Ok(outcome)));
                }
            }
            Err(failure) if batch.len() == 1 || failure.is_everyones() => {
                for pending in batch {
                    drop(pending.reply.send(Err(failure.to_error())));
                }
            }
            Err(_) => {
                for pending in batch {
                    let outcome = self.send_alone(&pending.request).await;
                    drop(pending.reply.send(outcome));
                }
            }
        }
    }

    async fn send_alone(&self, request: &Request) -> Result<Outcome, Error> {
        match self.record(&[request]).await {
            Ok(mut outcomes) => Ok(outcomes.remove(0)),
            Err(failure) => Err(failure.to_error()),
        }
    }

    /// Sends a batch, again where it lost to others, and returns the outcome of each append.
    async fn record(&self, requests: &[&Request]) -> Result<Vec<Outcome>, Failure> {
        let mut attempt = 1;
        let outcomes = loop {
            match self.try_record(requests).await {
                Err(failure) if failure.may_pass(requests) && attempt < ATTEMPTS => attempt += 1,
                result => break result?,
            }
        };
        if outcomes.iter().any(|outcome| matches!(outcome, Outcome::Recorded { .. })) {
            self.nudge.notify_one();
        }
        Ok(outcomes)
    }

    async fn try_record(&self, requests: &[&Request]) -> Result<Vec<Outcome>, Failure> {
        let client =
            self.pool.get().await.map_err(|error| Failure::NoConnection(Arc::new(error)))?;
        let statement = client
            .prepare_cached(&self.statement)
            .await
            .map_err(|e| Failure::Unsent(Arc::new(e)))?;
        let arrays = Arrays::of(requests, &self.clock)?;
        let rows = client
            .query(&statement, &arrays.params())
            .await
            .map_err(|error| Failure::Statement(Arc::new(error)))?;
        let mut rows = rows.iter();
        let mut next = Position::START;
        Ok(requests
            .iter()
            .map(|request| {
                let rows: Vec<_> = rows.by_ref().take(request.streams.len()).collect();
                let before = || rows.iter().map(|row| Version::new(row.get(1))).collect::<Vec<_>>();
                match rows[0].get::<_, i32>(0) {
                    0 => {
                        let first = next.max(Position::new(rows[0].get(2)));
                        next = first.plus(request.events.len());
                        Outcome::Recorded { before: before(), first }
                    }
                    1 => {
                        let before = before();
                        // The database found one that was not as expected, by the same rules.
                        let stream = std::iter::zip(&request.streams, &before)
                            .position(|((_, expected), actual)| !expected.accepts(*actual))
                            .unwrap_or(0);
                        Outcome::Conflict { stream, actual: before[stream] }
                    }
                    2 => Outcome::KeyTaken,
                    // A stream that is not live says so; the others of its append say 3.
                    _ => {
                        let of = |row: &&tokio_postgres::Row| match row.get::<_, i32>(0) {
                            4 => Some(StreamState::Deleted),
                            5 => Some(StreamState::Archived),
                            _ => None,
                        };
                        let states = rows.iter().enumerate();
                        let (stream, state) = states
                            .filter_map(|(stream, row)| Some((stream, of(row)?)))
                            .next()
                            .unwrap_or((0, StreamState::Deleted));
                        Outcome::NotLive { stream, state }
                    }
                }
            })
            .collect())
    }
}

/// Why a batch failed. Shared by all its appends.
#[derive(Clone)]
enum Failure {
    NoConnection(Arc<deadpool_postgres::PoolError>),
    /// The statement was not sent.
    Unsent(Arc<tokio_postgres::Error>),
    Statement(Arc<tokio_postgres::Error>),
    /// A time within an append is before an earlier one.
    Time(WentBack),
}

/// SQLSTATEs that the store's functions raise.
const CLOCK_WENT_BACK: &str = "AN001";
const KEY_TAKEN_MEANWHILE: &str = "AN002";

impl Failure {
    /// True if no append of the batch is to blame: sending them one by one would not help, or, where
    /// the connection is lost and the batch may be recorded, would record them twice.
    fn is_everyones(&self) -> bool {
        match self {
            Self::NoConnection(_) | Self::Unsent(_) => true,
            Self::Statement(error) => is_lost(error),
            Self::Time(_) => false,
        }
    }

    /// True if the batch surely had no effect, and the same again may succeed.
    fn may_pass(&self, requests: &[&Request]) -> bool {
        match self {
            // Another append came first with the time that the clock showed a moment later.
            Self::Statement(error) if clock_went_back(error).is_some() => {
                let mut events = requests.iter().flat_map(|request| &request.events);
                events.all(|(_, event)| event.recorded_at.is_none())
            }
            Self::Statement(error) if !is_lost(error) => error.code().is_some_and(|state| {
                *state == SqlState::T_R_SERIALIZATION_FAILURE
                    || *state == SqlState::T_R_DEADLOCK_DETECTED
                    || state.code() == KEY_TAKEN_MEANWHILE
            }),
            // A pooled connection that died while idle shows it at its next use.
            Self::Unsent(error) => is_lost(error),
            _ => false,
        }
    }

    fn to_error(&self) -> Error {
        match self {
            Self::Time(time) => (*time).into(),
            Self::NoConnection(error) => Error::Connect {
                target: "the append pool".to_owned(),
                source: Box::new(error.clone()),
            },
            Self::Unsent(error) => Error::Database {
                action: "prepare the append",
                source: Box::new(error.clone()),
                retryable: is_lost(error) || error.code().is_some_and(is_transient),
            },
            Self::Statement(error) if is_lost(error) => {
                Error::Indeterminate { source: Box::new(error.clone()) }
            }
            Self::Statement(error) => clock_went_back(error).unwrap_or_else(|| Error::Database {
                action: "append",
                source: Box::new(error.clone()),
                retryable: error.code().is_some_and(is_transient),
            }),
        }
    }
}

/// Reads the refusal of a supplied time; the time given is filled in by who knows it.
fn clock_went_back(error: &tokio_postgres::Error) -> Option<Error> {
    let error = error.as_db_error().filter(|error| error.code().code() == CLOCK_WENT_BACK)?;
    let last = DateTime::from_timestamp_micros(error.detail()?.parse().ok()?)?;
    Some(Error::ClockWentBack { given: last, last })
}

/// The parameters of `append_batch`, as the arrays that it takes.
#[derive(Default)]
struct Arrays<'a> {
    stream_append: Vec<i32>,
    stream_category: Vec<&'a str>,
    stream_key: Vec<&'a str>,
    stream_expected: Vec<i64>,
    stream_events: Vec<i32>,
    event_stream: Vec<i32>,
    event_number: Vec<i32>,
    event_id: Vec<Uuid>,
    event_type: Vec<&'a str>,
    event_schema: Vec<i32>,
    event_occurred: Vec<Option<DateTime<Utc>>>,
    event_recorded: Vec<Option<DateTime<Utc>>>,
    event_payload: Vec<Json<'a>>,
    event_metadata: Vec<Option<MetadataJson<'a>>>,
    key_append: Vec<i32>,
    key_stream: Vec<i32>,
    key: Vec<&'a str>,
    key_fingerprint: Vec<&'a [u8]>,
    key_number: Vec<i32>,
    key_last: Vec<i32>,
    key_events: Vec<i32>,
}

impl<'a> Arrays<'a> {
    fn of(requests: &[&'a Request], clock: &Clock) -> Result<Self, Failure> {
        let mut arrays = Self::default();
        for (request, number) in requests.iter().zip(1..) {
            let times = clock.times(request.events.iter().map(|(_, event)| event));
            arrays.event_recorded.extend(times.map_err(Failure::Time)?);
            arrays.add(request, number);
        }
        Ok(arrays)
    }

    fn add(&mut self, request: &'a Request, append: i32) {
        let (streams, events) = (self.stream_key.len(), self.event_id.len());
        for (stream, expected) in &request.streams {
            self.stream_append.push(append);
            self.stream_category.push(stream.category());
            self.stream_key.push(stream.key());
            self.stream_expected.push(match expected {
                ExpectedVersion::Any => -1,
                ExpectedVersion::Exists => -2,
                ExpectedVersion::NoStream => 0,
                ExpectedVersion::Exact(version) => version.get(),
            });
            self.stream_events.push(0);
        }
        for (stream, event) in &request.events {
            self.stream_events[streams + stream] += 1;
            self.event_stream.push((streams + stream + 1) as i32);
            self.event_number.push(self.stream_events[streams + stream]);
            self.event_id.push(event.id);
            self.event_type.push(&event.event_type);
            self.event_schema.push(event.schema_version as i32);
            self.event_occurred.push(event.occurred_at);
            self.event_payload.push(Json(event.payload.as_bytes()));
            let metadata = Some(&event.metadata).filter(|metadata| !metadata.is_empty());
            self.event_metadata.push(metadata.map(postgres_types::Json));
        }
        for key in &request.keys {
            self.key_append.push(append);
            self.key_stream.push((streams + key.stream + 1) as i32);
            self.key.push(&key.key);
            self.key_fingerprint.push(&key.fingerprint);
            self.key_number.push(key.number as i32);
            self.key_last.push(if key.events == 0 { 0 } else { (events + key.last) as i32 });
            self.key_events.push(key.events as i32);
        }
    }

    fn params(&self) -> [&(dyn ToSql + Sync); 21] {
        [
            &self.stream_append,
            &self.stream_category,
            &self.stream_key,
            &self.stream_expected,
            &self.stream_events,
            &self.event_stream,
            &self.event_number,
            &self.event_id,
            &self.event_type,
            &self.event_schema,
            &self.event_occurred,
            &self.event_recorded,
            &self.event_payload,
            &self.event_metadata,
            &self.key_append,
            &self.key_stream,
            &self.key,
            &self.key_fingerprint,
            &self.key_number,
            &self.key_last,
            &self.key_events,
        ]
    }
}

type MetadataJson<'a> = postgres_types::Json<&'a crate::event::Metadata>;

/// JSON text that goes out as it is.
#[derive(Debug)]
struct Json<'a>(&'a [u8]);

impl ToSql for Json<'_> {
    fn to_sql(
        &self,
        _: &Type,
        out: &mut BytesMut,
    ) -> Result<IsNull, Box<dyn std::error::Error + Sync + Send>> {
        out.extend_from_slice(self.0);
        Ok(IsNull::No)
    }

    accepts!(JSON);
    to_sql_checked!();
}

/// Tells readers that there is something to read, after commits and never inside one.
async fn announce(
    pool: Pool,
    channel: String,
    nudge: Arc<Notify>,
    alive: std::sync::Weak<Mutex<Gathering>>,
) {
    while alive.strong_count() > 0 {
        // Wakes up at times to see whether the store is still there.
        if tokio::time::timeout(Duration::from_secs(1), nudge.notified()).await.is_err() {
            continue;
        }
        if let Err(error) = notify(&pool, &channel).await {
            tracing::debug!(%error, "nudge not sent; readers find the events when they poll");
        }
        tokio::time::sleep(NUDGE_INTERVAL).await;
    }
}

async fn notify(pool: &Pool, channel: &str) -> Result<(), Error> {
    let client = pool.get().await.map_err(|error| Error::Connect {
        target: "the append pool".to_owned(),
        source: Box::new(error),
    })?;
    client
        .execute("select pg_notify($1, '')", &[&channel])
        .await
        .map(drop)
        .map_err(|error| database_error("announce an append", error))
}
