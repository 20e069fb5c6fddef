//! A cache of answers to queries, which a projection's commit makes invalid.

mod answers;
mod key;
mod standing;

use std::{
    any::Any,
    fmt,
    sync::{
        Arc,
        atomic::{AtomicI64, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use annals_eventstore::{EventStore, postgres::Database};
use moka::policy::EvictionPolicy;
use tokio_postgres::types::Type;

use self::{
    key::Key,
    standing::{Standing, Standings},
};
use super::{Query, QueryReadModels};
use crate::{error::Error, read_model::ReadModel};

/// How often an answer was asked for, by whether it was there.
const LOOKUPS: &str = "annals_query_cache_lookups_total";
/// How many bytes of answers are kept.
const BYTES: &str = "annals_query_cache_bytes";
/// What an answer costs beside its rows.
const OVERHEAD: usize = 256;
/// Of how many statements the types of the parameters are remembered.
const STATEMENTS: u64 = 1000;

/// How a cache of answers works.
#[derive(Clone, Copy, Debug)]
#[must_use = "options do nothing by themselves"]
pub struct QueryCacheOptions {
    max_age: Duration,
    max_bytes: u64,
    time_to_live: Duration,
}

impl Default for QueryCacheOptions {
    fn default() -> Self {
        Self {
            max_age: Duration::from_millis(100),
            max_bytes: 64 * 1024 * 1024,
            time_to_live: Duration::from_secs(600),
        }
    }
}

impl QueryCacheOptions {
    /// How much older than the read model an answer may be at most: 100 ms unless set. So often, while there are
    /// queries, the cache looks whether the projection has committed; with zero it does so for every query.
    pub fn max_age(mut self, age: Duration) -> Self {
        self.max_age = age;
        self
    }

    /// How much room answers take at most, in bytes: 64 MiB unless set. It is estimated from what the database
    /// sends. What was used least recently makes room.
    pub fn max_bytes(mut self, bytes: u64) -> Self {
        self.max_bytes = bytes;
        self
    }

    /// After how long an answer is forgotten, also one about the past: 10 minutes unless set.
    pub fn time_to_live(mut self, time: Duration) -> Self {
        self.time_to_live = time;
        self
    }
}

/// Answers to queries on the read models of one store, kept as long as they are right.
///
/// It is asked as the store is:
///
/// ```no_run
/// # use annals_eventstore::EventStore;
/// # use annals_projections::{QueryCache, QueryReadModels, ReadModel};
/// # async fn run<LoanOverview: ReadModel>(store: EventStore) -> Result<(), annals_projections::ProjectionError> {
/// let cache = QueryCache::new(&store)?;
/// let largest = || cache.query::<LoanOverview>().order_by("amount desc").limit(20).all();
/// largest().await?;
/// // Without the database, unless the projection has committed meanwhile:
/// largest().await?;
/// println!("{:?}", cache.statistics());
/// # Ok(()) }
/// ```
///
/// # What is guaranteed
/// An answer rests on a state of the projection's checkpoint, and the transaction that changes rows changes that too. So
/// the commit of a projection, in whichever process, makes all answers before it invalid, and so do a swap, a
/// rollback and a reset. The cache asks the database how the checkpoint stands, once for all queries in
/// [`max_age`](QueryCacheOptions::max_age). No notification is involved that could be lost.
///
/// - [`Eventual`](super::Consistency::Eventual): the answer is that of the read model as it was at most `max_age` before the query,
///   or later. To one question the answers of one cache never go back.
/// - [`AtLeast`](super::Consistency::AtLeast): everything up to the position is in it, as without a cache.
/// - [`Strong`](super::Consistency::Strong): always asks the database.
/// - [As of](Query::as_of) a moment: what was does not change, so the answer is kept whatever the projection commits,
///   until its tables are built anew or its history is forgotten; then for `max_age` at most. A time is
///   looked up in the database each time; a position is not.
///
/// Read models that run inline are not kept: their rows change with every append. Nor are [`rows`](Query::rows),
/// [`history`](Query::history) and [`changes`](Query::changes). What somebody changes in the tables by hand is
/// not noticed. Where a failover can lose acknowledged events, begin with a new cache after it.
///
/// Of queries that ask the same at the same time, one asks the database. A failure is not kept.
///
/// The metric `annals_query_cache_lookups_total` counts by `read_model` and `outcome` (`hit`, `miss`);
/// `annals_query_cache_bytes` is the room that answers take. Clones share the answers.
#[derive(Clone)]
pub struct QueryCache(Arc<Inner>);

struct Inner {
    store: EventStore,
    max_age: Duration,
    answers: moka::future::Cache<Key, Answer>,
    /// The types of the parameters of statements.
    types: moka::sync::Cache<Arc<str>, Arc<[Type]>>,
    standings: Standings,
    tally: Arc<Tally>,
}

/// What was answered, whatever its type.
#[derive(Clone)]
struct Answer {
    value: Arc<dyn Any + Send + Sync>,
    weight: u32,
}

#[derive(Debug, Default)]
struct Tally {
    hits: AtomicU64,
    misses: AtomicU64,
    /// For a moment it may be below zero: what goes is sometimes counted before what came.
    bytes: AtomicI64,
}

/// How often a cache was of use, and how much it holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct QueryCacheStatistics {
    /// How many queries found their answer, or another that was just asking for it.
    pub hits: u64,
    /// How many asked the database, and kept the answer.
    pub misses: u64,
    /// How much room answers take, about. Those that are forgotten go a little later.
    pub bytes: u64,
}

impl QueryCache {
    /// A cache for a store, with the options that there are unless set.
    ///
    /// # Errors
    /// If the store is in memory.
    pub fn new(store: &EventStore) -> Result<Self, Error> {
        Self::with(store, QueryCacheOptions::default())
    }

    /// The same with other options.
    ///
    /// # Errors
    /// If the store is in memory.
    pub fn with(store: &EventStore, options: QueryCacheOptions) -> Result<Self, Error> {
        store.database()?;
        describe();
        let QueryCacheOptions { max_age, max_bytes, time_to_live } = options;
        let tally = Arc::new(Tally::default());
        let forgotten = tally.clone();
        let answers = moka::future::Cache::builder()
            // Those that rest on an earlier checkpoint are never asked for again, however often they were before.
            .eviction_policy(EvictionPolicy::lru())
            .max_capacity(max_bytes)
            .weigher(|_: &Key, answer: &Answer| answer.weight)
            .time_to_live(time_to_live)
            .eviction_listener(move |_, answer: Answer, _| {
                forgotten.holds(-i64::from(answer.weight))
            })
            .build();
        Ok(Self(Arc::new(Inner {
            store: store.clone(),
            max_age,
            answers,
            types: moka::sync::Cache::new(STATEMENTS),
            standings: Standings::default(),
            tally,
        })))
    }

    /// How often it was of use, and how much it holds.
    pub fn statistics(&self) -> QueryCacheStatistics {
        let Tally { hits, misses, bytes } = &*self.0.tally;
        QueryCacheStatistics {
            hits: hits.load(Ordering::Relaxed),
            misses: misses.load(Ordering::Relaxed),
            bytes: bytes.load(Ordering::Relaxed).max(0) as u64,
        }
    }

    /// How a read model stands, as seen not longer ago than that.
    async fn standing<R: ReadModel>(
        &self,
        database: &Database,
        max_age: Duration,
    ) -> Option<Arc<Standing>> {
        let now = Instant::now();
        self.0.standings.of::<R>(database, now.checked_sub(max_age).unwrap_or(now)).await
    }

    /// The types of a statement's parameters.
    async fn types(&self, database: &Database, sql: &Arc<str>) -> Result<Arc<[Type]>, TypesError> {
        if let Some(types) = self.0.types.get(sql) {
            return Ok(types);
        }
        let prepared = database.client().await?.prepare_cached(sql).await?;
        let types: Arc<[Type]> = prepared.params().into();
        self.0.types.insert(sql.clone(), types.clone());
        Ok(types)
    }

    /// The answer that is there, or that `load` brings. `None` if another's attempt to get it failed, or it is of
    /// another type.
    async fn answer<R: ReadModel, T: Clone + 'static>(
        &self,
        key: Key,
        load: impl Future<Output = Result<Answer, Error>>,
    ) -> Result<Option<T>, Error> {
        let answered = self.0.answers.entry(key).or_try_insert_with(load).await;
        let entry = match answered.map_err(Arc::try_unwrap) {
            Ok(entry) => entry,
            Err(Ok(error)) => return Err(error),
            // Each asks for itself then, so that each has its own failure.
            Err(Err(_)) => return Ok(None),
        };
        let outcome = if entry.is_fresh() {
            self.0.tally.holds(entry.value().weight.into());
            self.0.tally.misses.fetch_add(1, Ordering::Relaxed);
            "miss"
        } else {
            self.0.tally.hits.fetch_add(1, Ordering::Relaxed);
            "hit"
        };
        metrics::counter!(LOOKUPS, "read_model" => R::TABLE, "outcome" => outcome).increment(1);
        Ok(entry.value().value.downcast_ref::<T>().cloned())
    }
}

/// Why the types of a statement's parameters are not known.
#[derive(Debug, thiserror::Error)]
enum TypesError {
    #[error(transparent)]
    Store(#[from] annals_eventstore::Error),
    #[error(transparent)]
    Refused(#[from] tokio_postgres::Error),
}

impl QueryReadModels for QueryCache {
    /// Starts a query whose answer is kept.
    fn query<R: ReadModel>(&self) -> Query<'_, R> {
        Query { cache: Some(self), ..Query::new(&self.0.store) }
    }
}

impl fmt::Debug for QueryCache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("QueryCache")
            .field("max_age", &self.0.max_age)
            .field("statistics", &self.statistics())
            .finish_non_exhaustive()
    }
}

impl Answer {
    fn new<T: Send + Sync + 'static>(value: T, weight: usize) -> Self {
        let weight = u32::try_from(weight.saturating_add(OVERHEAD)).unwrap_or(u32::MAX);
        Self { value: Arc::new(value), weight }
    }
}

impl Tally {
    /// So many bytes came, or went.
    fn holds(&self, bytes: i64) {
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
        metrics::gauge!(BYTES).increment(bytes as f64);
    }
}

impl Drop for Tally {
    fn drop(&mut self) {
        metrics::gauge!(BYTES).decrement(*self.bytes.get_mut() as f64);
    }
}

/// Tells a recorder of metrics, if there is one, what they mean.
fn describe() {
    use metrics::{Unit, describe_counter, describe_gauge};

    describe_counter!(
        LOOKUPS,
        Unit::Count,
        "Queries on a read model through a cache, by whether the answer was there"
    );
    describe_gauge!(BYTES, Unit::Bytes, "Room that answers in query caches take");
}
