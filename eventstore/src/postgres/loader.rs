//! Coalesced loads: what concurrent commands wait to load goes out as few queries.
//!
//! As with appends, batches form by themselves: while one query is on its way, the next one gathers.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use futures::TryStreamExt;
use tokio::{
    sync::{Mutex, mpsc, oneshot},
    time::{error::Elapsed, timeout},
};
use tokio_postgres::{Row, types::ToSql};

use super::{
    Client, Schema,
    connect::Connections,
    database_error, is_lost,
    page::{JsonText, Names},
};
use crate::{
    backend::{Load, Part, StoredEvent, StoredSnapshot},
    error::Error,
    ids::{Position, Version},
    life::StreamState,
    query::Archived,
};

/// How many streams one query loads, unless a single request asks for more.
const MAX_STREAMS: usize = 512;
/// About how many events one query fetches, and at least how many of each stream.
const MAX_EVENTS: usize = 16_384;
const MIN_EVENTS: usize = 64;
/// How many queries are on their way at the same time.
const QUERIES: usize = 2;
/// How many requests wait before the next caller has to.
const QUEUE: usize = 4096;

/// The door to the tasks that load.
pub(super) struct Loader {
    queue: mpsc::Sender<Pending>,
}

struct Pending {
    loads: Vec<Load>,
    reply: oneshot::Sender<Result<Vec<Part>, Error>>,
}

impl Loader {
    /// Starts the tasks. They end when the loader is dropped.
    ///
    /// The server limits the statements. `limit` is for one that does not answer any more.
    pub(super) fn start(pool: Connections, schema: &Schema, limit: Option<Duration>) -> Self {
        let (queue, receiver) = mpsc::channel(QUEUE);
        let receiver = Arc::new(Mutex::new(receiver));
        let query: Arc<str> = schema.sql(include_str!("sql/load.sql")).into();
        for _ in 0..QUERIES {
            let (pool, receiver, query) = (pool.clone(), receiver.clone(), query.clone());
            tokio::spawn(async move {
                loop {
                    let batch = gather(&mut *receiver.lock().await).await;
                    if batch.is_empty() {
                        break;
                    }
                    answer(&pool, &query, limit, batch).await;
                }
            });
        }
        Self { queue }
    }

    /// Loads the next part of each stream.
    pub(super) async fn load(&self, loads: Vec<Load>) -> Result<Vec<Part>, Error> {
        let (reply, parts) = oneshot::channel();
        self.queue.send(Pending { loads, reply }).await.map_err(|_| Error::Closed)?;
        parts.await.map_err(|_| Error::Closed)?
    }
}

/// What waits, at least one request. None at the end.
async fn gather(receiver: &mut mpsc::Receiver<Pending>) -> Vec<Pending> {
    let mut batch = Vec::new();
    let mut streams = 0;
    let mut next = receiver.recv().await;
    // As for appends: whoever is about to load as well gets to the queue first.
    tokio::task::yield_now().await;
    while let Some(pending) = next {
        streams += pending.loads.len();
        batch.push(pending);
        next = if streams < MAX_STREAMS { receiver.try_recv().ok() } else { None };
    }
    batch
}

async fn answer(pool: &Connections, query: &str, limit: Option<Duration>, batch: Vec<Pending>) {
    let loads: Vec<&Load> = batch.iter().flat_map(|pending| &pending.loads).collect();
    let mut loaded = fetch(pool, query, limit, &loads).await;
    if matches!(&loaded, Err(Failure::Statement(error)) if is_lost(error)) {
        // A pooled connection that died while idle shows it at its next use. Reading again is harmless.
        loaded = fetch(pool, query, limit, &loads).await;
    }
    match loaded {
        Ok(parts) => {
            let mut parts = parts.into_iter();
            for Pending { loads, reply } in batch {
                // A caller that went away does not need its answer.
                drop(reply.send(Ok(parts.by_ref().take(loads.len()).collect())));
            }
        }
        Err(failure) => {
            for pending in batch {
                drop(pending.reply.send(Err(failure.to_error())));
            }
        }
    }
}

async fn fetch(
    pool: &Connections,
    query: &str,
    limit: Option<Duration>,
    loads: &[&Load],
) -> Result<Vec<Part>, Failure> {
    let no_connection = |error| Failure::NoConnection(Arc::new(error));
    let busy = pool.busy().await.map_err(no_connection)?;
    let fetching = fetch_on(busy.client().map_err(no_connection)?, query, loads);
    let fetched = match limit {
        None => fetching.await,
        Some(limit) => match timeout(limit, fetching).await {
            Ok(fetched) => fetched,
            Err(elapsed) => return Err(Failure::NoAnswer(Arc::new(elapsed))),
        },
    };
    busy.done();
    fetched.map_err(|error| Failure::Statement(Arc::new(error)))
}

/// The same on a connection that the caller holds, in its transaction if it is in one.
pub(super) async fn fetch_on(
    client: &Client,
    query: &str,
    loads: &[&Load],
) -> Result<Vec<Part>, tokio_postgres::Error> {
    let statement = client.prepare_cached(query).await?;
    let arrays = Arrays::of(loads);
    let limit = (MAX_EVENTS / loads.len().max(1)).max(MIN_EVENTS);
    let limit_parameter = limit as i64;
    let params: [&(dyn ToSql + Sync); 9] = [
        &arrays.categories,
        &arrays.keys,
        &arrays.after,
        &arrays.up_to_version,
        &arrays.up_to_position,
        &arrays.snapshots,
        &arrays.fingerprints,
        &limit_parameter,
        &arrays.archived,
    ];
    let mut parts: Vec<Part> = loads.iter().map(|_| Part::default()).collect();
    let mut names = Names::default();
    let rows = client.query_raw(&statement, params).await?;
    let mut rows = std::pin::pin!(rows);
    while let Some(row) = rows.try_next().await? {
        add(&mut parts, &row, &mut names)?;
    }
    for part in &mut parts {
        part.more = part.events.len() == limit;
        // The rows come by version as the query is planned, but nothing in it says so.
        if !part.events.is_sorted_by_key(|event| event.version) {
            part.events.sort_by_key(|event| event.version);
        }
    }
    Ok(parts)
}

fn add(parts: &mut [Part], row: &Row, names: &mut Names) -> Result<(), tokio_postgres::Error> {
    let index: i64 = row.try_get(0)?;
    let part = &mut parts[index as usize - 1];
    let number: i64 = row.try_get(1)?;
    let version = Version::new(number);
    let position = Position::new(row.try_get(2)?);
    let content = row.try_get::<_, Option<JsonText>>(5)?;
    let Some(JsonText(content)) = content else {
        match number {
            -1 => part.is_behind = true,
            state => part.state = StreamState::stored(state),
        }
        return Ok(());
    };
    match row.try_get::<_, Option<&str>>(3)? {
        None => {
            let state = Bytes::copy_from_slice(content.as_bytes());
            part.snapshot = Some(StoredSnapshot { version, position, state });
        }
        Some(event_type) => part.events.push(StoredEvent {
            version,
            position,
            event_type: names.get(event_type),
            schema_version: row.try_get::<_, i32>(4)? as u32,
            payload: content,
        }),
    }
    Ok(())
}

/// Why a query failed. Shared by all its requests.
enum Failure {
    NoConnection(Arc<Error>),
    NoAnswer(Arc<Elapsed>),
    Statement(Arc<tokio_postgres::Error>),
}

impl Failure {
    fn to_error(&self) -> Error {
        match self {
            Self::NoConnection(error) => Error::shared("connect to load", error),
            Self::NoAnswer(elapsed) => Error::Database {
                action: "load streams: the server does not answer",
                source: Box::new(elapsed.clone()),
                retryable: true,
            },
            Self::Statement(error) => Error::Database {
                action: "load streams",
                source: Box::new(error.clone()),
                retryable: is_lost(error) || error.code().is_some_and(super::is_transient),
            },
        }
    }
}

#[derive(Default)]
struct Arrays<'a> {
    categories: Vec<&'a str>,
    keys: Vec<&'a str>,
    after: Vec<i64>,
    up_to_version: Vec<i64>,
    up_to_position: Vec<i64>,
    snapshots: Vec<Option<&'a str>>,
    fingerprints: Vec<Option<&'a [u8]>>,
    archived: Vec<bool>,
}

impl<'a> Arrays<'a> {
    fn of(loads: &[&'a Load]) -> Self {
        let mut arrays = Self::default();
        for load in loads {
            arrays.categories.push(load.stream.category());
            arrays.keys.push(load.stream.key());
            arrays.after.push(load.after.get());
            arrays.up_to_version.push(load.up_to_version.get());
            arrays.up_to_position.push(load.up_to_position.get());
            arrays.snapshots.push(load.snapshot.as_ref().map(|kind| kind.name));
            arrays.fingerprints.push(load.snapshot.as_ref().map(|kind| &kind.fingerprint[..]));
            arrays.archived.push(load.archived == Archived::Included);
        }
        arrays
    }
}

/// Keeps a snapshot.
pub(super) async fn save_snapshot(
    pool: &Connections,
    sql: &str,
    snapshot: crate::backend::NewSnapshot,
) -> Result<(), Error> {
    let failed = |error| database_error("keep a snapshot", error);
    let client = pool.get().await?;
    let statement = client.prepare_cached(sql).await.map_err(failed)?;
    let state = super::appender::Json(&snapshot.state);
    let (fingerprint, keep) = (&snapshot.kind.fingerprint[..], snapshot.keep.map(i64::from));
    let params: [&(dyn ToSql + Sync); 8] = [
        &snapshot.stream.category(),
        &snapshot.stream.key(),
        &snapshot.kind.name,
        &fingerprint,
        &snapshot.version.get(),
        &snapshot.position.get(),
        &state,
        &keep,
    ];
    client.execute(&statement, &params).await.map(drop).map_err(failed)
}
