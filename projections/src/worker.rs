//! Workers: they feed events to projections, and see to it that each projection has one worker.

use std::{sync::Arc, time::Duration};

use annals_eventstore::{
    Error as StoreError, EventStore, Position, Recorded,
    postgres::{Checkpoint, Database, Lease, LeaseOptions, Listener, Use},
};
use futures::{FutureExt, future::BoxFuture};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use crate::{
    engine::Engine, error::Error, install::install, read_model::ReadModel, table::checkpoint_name,
};

/// How long to wait after a failure that may pass.
const RETRY_DELAYS: [Duration; 5] = [
    Duration::from_millis(50),
    Duration::from_millis(200),
    Duration::from_millis(500),
    Duration::from_secs(1),
    Duration::from_secs(2),
];

/// Runs projections, fed by the store.
///
/// Several processes may run the same projection: one works, the others stand by and take over when
/// its lease ends. Rows and checkpoint move in one transaction, so whatever is killed when, each
/// event is applied exactly once.
///
/// ```no_run
/// # use annals_eventstore::{Aggregate, Apply, Event, EventStore, Recorded};
/// # use annals_projections::{Change, Project, ReadModel, Worker};
/// # use serde::{Deserialize, Serialize};
/// # #[derive(Event, Serialize, Deserialize)]
/// # enum LoanEvent { Approved }
/// # #[derive(Aggregate, Default)]
/// # #[aggregate(category = "loan", event = LoanEvent)]
/// # struct Loan;
/// # impl Apply<LoanEvent> for Loan { fn apply(&mut self, _: &LoanEvent) {} }
/// # #[derive(ReadModel, Clone)]
/// # #[read_model(table = "loan_overview", from(Loan))]
/// # struct LoanOverview { #[read_model(key)] loan: String }
/// # impl Project<LoanEvent> for LoanOverview {
/// #     fn project(row: Option<Self>, _: &Recorded<LoanEvent>) -> Change<Self> { Change::Keep }
/// # }
/// # async fn run(store: EventStore) -> Result<(), annals_projections::ProjectionError> {
/// Worker::new(&store).projection::<LoanOverview>().run().await
/// # }
/// ```
#[must_use = "a worker does nothing until it is run"]
pub struct Worker {
    store: EventStore,
    projections: Vec<Box<dyn Projection>>,
    options: Options,
}

#[derive(Clone, Copy, Debug)]
struct Options {
    batch_size: usize,
    poll_interval: Duration,
    lease: LeaseOptions,
}

impl std::fmt::Debug for Worker {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let names: Vec<_> = self.projections.iter().map(|projection| projection.name()).collect();
        f.debug_struct("Worker").field("projections", &names).finish_non_exhaustive()
    }
}

impl Worker {
    /// A worker without projections.
    pub fn new(store: &EventStore) -> Self {
        let options = Options {
            batch_size: 2000,
            poll_interval: Duration::from_millis(100),
            lease: LeaseOptions::default(),
        };
        Self { store: store.clone(), projections: Vec::new(), options }
    }

    /// Adds the projection of a read model.
    pub fn projection<R: ReadModel>(mut self) -> Self {
        self.projections.push(Box::new(RowProjection::<R>(std::marker::PhantomData)));
        self
    }

    /// How many events are applied in one transaction at most: 2,000 unless set.
    pub fn batch_size(mut self, events: usize) -> Self {
        self.options.batch_size = events.max(1);
        self
    }

    /// How often to look for events when no nudge comes: every 100 ms unless set.
    pub fn poll_interval(mut self, interval: Duration) -> Self {
        self.options.poll_interval = interval;
        self
    }

    /// How the projections' leases are held. A worker that dies is replaced when its lease ends.
    pub fn lease(mut self, options: LeaseOptions) -> Self {
        self.options.lease = options;
        self
    }

    /// Runs until a projection fails for a reason that does not pass.
    ///
    /// # Errors
    /// The first such failure, for example an event that does not decode. Failures that may pass,
    /// such as a lost connection, are logged and tried again.
    pub async fn run(self) -> Result<(), Error> {
        self.run_until(CancellationToken::new()).await
    }

    /// Runs until it is told to stop, and gives its leases back.
    ///
    /// # Errors
    /// As [`run`](Self::run).
    pub async fn run_until(self, stop: CancellationToken) -> Result<(), Error> {
        let Self { store, projections, options } = self;
        // Its reading too: it must not wait for the queries of others.
        let store = store.using(Use::Project);
        let database = store.database()?.clone();
        // All stop when one fails.
        let stop = stop.child_token();
        let all = projections.iter().map(|projection| {
            let feed = Feed {
                store: store.clone(),
                database: database.clone(),
                options,
                stop: stop.clone(),
            };
            projection.run(feed).inspect(|result| {
                if result.is_err() {
                    stop.cancel();
                }
            })
        });
        futures::future::join_all(all).await.into_iter().collect()
    }
}

/// What every projection works on.
struct Feed {
    store: EventStore,
    database: Database,
    options: Options,
    stop: CancellationToken,
}

/// A projection of any kind.
trait Projection: Send + Sync {
    fn name(&self) -> &'static str;
    fn run(&self, feed: Feed) -> BoxFuture<'_, Result<(), Error>>;
}

struct RowProjection<R>(std::marker::PhantomData<fn() -> R>);

impl<R: ReadModel> Projection for RowProjection<R> {
    fn name(&self) -> &'static str {
        R::TABLE
    }

    fn run(&self, feed: Feed) -> BoxFuture<'_, Result<(), Error>> {
        supervise::<R>(feed).boxed()
    }
}

/// Runs a projection again after each failure that may pass.
async fn supervise<R: ReadModel>(feed: Feed) -> Result<(), Error> {
    let engine = Engine::<R>::new(&feed.database, feed.options.lease.time_to_live);
    let mut failures = 0;
    while !feed.stop.is_cancelled() {
        let started = std::time::Instant::now();
        let error = match hold_lease(&feed, &engine).await {
            Ok(()) => continue,
            Err(error) => error,
        };
        let fenced = matches!(error, Error::Store(StoreError::Fenced { .. }));
        if !fenced && !error.is_retryable() {
            return Err(error);
        }
        // One that had worked for a while starts over with short delays.
        failures = if started.elapsed() > Duration::from_secs(10) { 0 } else { failures };
        let delay = RETRY_DELAYS[failures.min(RETRY_DELAYS.len() - 1)];
        failures += 1;
        let cause = std::error::Error::source(&error).map(ToString::to_string);
        warn!(projection = R::TABLE, %error, cause, ?delay, "projection interrupted");
        let _ = tokio::time::timeout(delay, feed.stop.cancelled()).await;
    }
    Ok(())
}

/// Waits for the lease, works while it holds, and gives it back.
async fn hold_lease<R: ReadModel>(feed: &Feed, engine: &Engine<R>) -> Result<(), Error> {
    let name = checkpoint_name::<R>();
    let lease = loop {
        if let Some(lease) = Lease::try_acquire(&feed.database, &name, feed.options.lease).await? {
            break lease;
        }
        debug!(projection = R::TABLE, "standing by: another worker holds the lease");
        let wait = feed.options.lease.time_to_live / 5;
        if tokio::time::timeout(wait, feed.stop.cancelled()).await.is_ok() {
            return Ok(());
        }
    };
    info!(projection = R::TABLE, epoch = lease.epoch(), "working");
    let lease = Arc::new(lease);
    // In a task of its own, so that folding a long batch does not hold it up. It ends with this one.
    let mut renewing = JoinSet::new();
    renewing.spawn(keep(lease.clone()));
    let result = tokio::select! {
        Some(Ok(error)) = renewing.join_next() => Err(error.into()),
        result = work(feed, engine, &name, lease.epoch()) => result,
    };
    renewing.shutdown().await;
    if let Some(lease) = Arc::into_inner(lease)
        && let Err(error) = lease.release().await
    {
        debug!(projection = R::TABLE, %error, "lease not given back; it ends by itself");
    }
    result
}

/// Renews a lease until that fails.
pub(crate) async fn keep(lease: Arc<Lease>) -> StoreError {
    loop {
        tokio::time::sleep(lease.renewal_interval()).await;
        if let Err(error) = lease.renew().await {
            return error;
        }
    }
}

/// Applies batch after batch until told to stop. The next one is read while one is applied.
async fn work<R: ReadModel>(
    feed: &Feed,
    engine: &Engine<R>,
    name: &str,
    epoch: i64,
) -> Result<(), Error> {
    if feed.database.inline_categories(name).await?.is_some() {
        return Err(Error::RunsInline { projection: R::TABLE });
    }
    install::<R>(&feed.database).await?;
    let mut checkpoint = Checkpoint::take_over(&feed.database, name, epoch).await?;
    let categories = engine.categories();
    let mut listener: Option<Listener> = None;
    let mut next = read(feed, &categories, checkpoint.position()).await?;
    while !feed.stop.is_cancelled() {
        let Some((events, to)) = next.take() else {
            if listener.as_ref().is_none_or(Listener::is_closed) {
                listener = Some(feed.database.listen().await?);
            } else if let Some(listener) = &listener {
                tokio::select! {
                    () = listener.wait(feed.options.poll_interval) => {}
                    () = feed.stop.cancelled() => break,
                }
            }
            next = read(feed, &categories, checkpoint.position()).await?;
            continue;
        };
        let (applied, read) =
            tokio::join!(engine.apply(events, &mut checkpoint, to), read(feed, &categories, to));
        applied?;
        next = read?;
    }
    Ok(())
}

/// The next batch after a position and the position that it reaches; `None` if there is nothing.
async fn read(
    feed: &Feed,
    categories: &[String],
    after: Position,
) -> Result<Option<(Vec<Recorded>, Position)>, Error> {
    // First the safe position, then, in a statement of its own, what is below it.
    let safe = feed.store.safe_position().await?;
    if safe <= after {
        return Ok(None);
    }
    let limit = feed.options.batch_size;
    let events = feed.store.read_page(Some(categories), after, safe, limit).await?;
    // A batch that is not full has seen all up to the safe position, also what it does not match.
    let to = match events.last() {
        Some(last) if events.len() == limit => last.position,
        _ => safe,
    };
    Ok(Some((events, to)))
}
