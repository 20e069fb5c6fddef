//! Building a read model anew, beside the one that is in use.
//!
//! The log is folded into tables of their own, in a schema beside that of the read models, in parallel and
//! with COPY. The worker goes on with the table that is in use, and readers see nothing of it. Then the new
//! tables follow the log until they are as far, and take the place of the old ones in one transaction. The
//! old ones are kept, for a rollback.

mod compare;
mod copy;
mod dependents;
mod fill;
mod follow;
mod pages;
mod place;
mod progress;
mod replay;
mod shard;
mod swap;
mod throttle;

use std::{marker::PhantomData, sync::Arc, time::Duration};

use annals_eventstore::{
    EventStore, Position,
    postgres::{Checkpoint, Lease, LeaseOptions, Use},
};

pub use self::{
    compare::{Comparison, Difference},
    progress::{Phase, Progress},
    replay::Replayed,
};
use self::{
    place::{Place, Purpose, Stage},
    progress::Reporter,
};
use crate::{
    error::Error, fail_points::may_fail, guard::panicked, install::install, read_model::ReadModel,
};

/// What is nearer to the end of the log than this is followed, batch by batch.
const NEAR: i64 = 20_000;
/// How often to look whether another process is done.
const WAIT: Duration = Duration::from_millis(300);

/// Builds a read model anew from the log, beside the tables that are in use.
///
/// ```no_run
/// # use annals_eventstore::EventStore;
/// # use annals_projections::{ReadModel, Rebuild};
/// # async fn run<R: ReadModel>(store: EventStore) -> Result<(), annals_projections::ProjectionError> {
/// let rebuild = Rebuild::<R>::of(&store).on_progress(|progress| println!("{progress}"));
/// rebuild.build().await?;
/// let comparison = rebuild.compare().await?;
/// if comparison.is_same() {
///     rebuild.swap().await?;
/// }
/// # Ok(()) }
/// ```
///
/// What was built stays until it is swapped in or [discarded](Self::discard), also when the program ends
/// in between: the next [`build`](Self::build) goes on from there. While it lasts, streams that it has
/// not come to cannot be archived. A reactor takes no part in it, so nothing has its effects twice.
///
/// A read model that runs inline cannot be built beside itself: [`reset`](crate::reset) it.
#[derive(Clone)]
#[must_use = "it does nothing until it is told to build"]
pub struct Rebuild<R> {
    store: EventStore,
    options: Options,
    reporter: Arc<Reporter>,
    row: PhantomData<fn() -> R>,
}

#[derive(Clone, Copy, Debug)]
struct Options {
    shards: usize,
    events_per_second: Option<u32>,
    rows_in_memory: usize,
    max_parked: usize,
    lease: LeaseOptions,
}

impl<R> std::fmt::Debug for Rebuild<R> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Rebuild").field("options", &self.options).finish_non_exhaustive()
    }
}

/// What a rebuild came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Built {
    /// Up to where it has come.
    pub position: Position,
    /// How many events it folded; those of an earlier run that it went on from are not counted.
    pub events: u64,
    /// How many streams are parked, because an event of theirs failed.
    pub parked: u64,
}

impl<R: ReadModel> Rebuild<R> {
    /// A rebuild of a store's read model.
    pub fn of(store: &EventStore) -> Self {
        let options = Options {
            shards: std::thread::available_parallelism().map_or(1, |all| all.get() / 2).clamp(1, 3),
            events_per_second: None,
            rows_in_memory: 200_000,
            max_parked: 10,
            lease: LeaseOptions::default(),
        };
        let store = store.using(Use::Rebuild);
        Self { store, options, reporter: Arc::default(), row: PhantomData }
    }

    /// In how many parts rows are folded at the same time: half as many as there are processors, since reading,
    /// decoding and copying go on beside it, and at most 3, unless set. Each takes a connection of
    /// [`Use::Rebuild`], or two, and reading takes two more; where there are fewer, they wait for each other.
    pub fn shards(mut self, shards: usize) -> Self {
        self.options.shards = shards.max(1);
        self
    }

    /// How many events are read per second at most, so that others have the database too: as many as
    /// there can be unless set.
    pub fn events_per_second(mut self, events: u32) -> Self {
        self.options.events_per_second = Some(events.max(1));
        self
    }

    /// How many rows are kept in memory: 200,000 unless set. With more rows than that it takes longer, and
    /// no more memory.
    pub fn rows_in_memory(mut self, rows: usize) -> Self {
        self.options.rows_in_memory = rows.max(1);
        self
    }

    /// How many streams may be parked before the rebuild fails: 10 unless set.
    pub fn max_parked(mut self, streams: usize) -> Self {
        self.options.max_parked = streams;
        self
    }

    /// How the lease is held that keeps two rebuilds of a read model apart. One that dies is gone on with when
    /// it ends.
    pub fn lease(mut self, options: LeaseOptions) -> Self {
        self.options.lease = options;
        self
    }

    /// Is told how far it is, a few times per second.
    pub fn on_progress(mut self, tell: impl Fn(Progress) + Send + Sync + 'static) -> Self {
        self.reporter = Arc::new(Reporter::new(tell));
        self
    }

    /// Builds and swaps.
    ///
    /// # Errors
    /// As [`build`](Self::build) and [`swap`](Self::swap).
    pub async fn run(&self) -> Result<Built, Error> {
        self.alone(async |place| bring_up_and_swap(place).await).await
    }

    /// Builds the tables beside those in use, up to the end of the log, or goes on where an earlier build
    /// stopped. They then stay as they are until the next call.
    ///
    /// Cancellation safe: what was built is gone on with by the next call.
    ///
    /// # Errors
    /// [`Error::RebuildRuns`] if another process is at it; an event that cannot be projected once more than
    /// [`max_parked`](Self::max_parked) are parked; or a failure of the database.
    pub async fn build(&self) -> Result<Built, Error> {
        self.alone(async |place| Ok(bring_up(place).await?.0)).await
    }

    /// Compares the tables in use with those that were built, row by row, both as of exactly where the
    /// projection is. It goes on meanwhile; if it is behind what was built, this waits for it.
    ///
    /// # Errors
    /// [`Error::NotRebuilt`] if nothing was built; [`Error::Outdated`] if the tables in use have other
    /// columns; [`Error::NotReached`] if the projection is behind and stands still; else as
    /// [`build`](Self::build).
    pub async fn compare(&self) -> Result<Comparison, Error> {
        self.alone(async |place| compare::compare(place, &mut place.take_up().await?).await).await
    }

    /// Puts what was built in the place of the tables in use, once it has come to where they are, in one
    /// transaction. Readers see the old rows, and from then on the new ones. Views on the tables are made
    /// anew on the new ones, and their grants are copied. The old tables are kept until the next rebuild.
    ///
    /// # Errors
    /// [`Error::NotRebuilt`] if nothing was built; [`Error::InTheWay`] if something depends on the old tables
    /// that cannot be moved; else as [`build`](Self::build). Nothing is changed then.
    pub async fn swap(&self) -> Result<(), Error> {
        self.alone(async |place| swap::swap(place, &mut place.take_up().await?).await).await
    }

    /// Puts the tables that were replaced last back into their place, as of where they were, and keeps
    /// those that replaced them. The worker brings them up to date. Called again, it undoes itself.
    ///
    /// # Errors
    /// [`Error::NotRebuilt`] if there are none; [`Error::Outdated`] if they are of another shape: then the
    /// program of that time rolls back; else as [`swap`](Self::swap).
    pub async fn rollback(&self) -> Result<(), Error> {
        self.alone(async |place| swap::rollback(place).await).await
    }

    /// Drops what was built and not swapped in, and what was replaced.
    ///
    /// # Errors
    /// As [`build`](Self::build).
    pub async fn discard(&self) -> Result<(), Error> {
        self.alone(async |place| place.discard().await).await
    }

    /// Does something while nobody else rebuilds this read model.
    async fn alone<T>(
        &self,
        work: impl AsyncFnOnce(&Place<R>) -> Result<T, Error>,
    ) -> Result<T, Error> {
        self.alone_for(Purpose::Rebuild, work).await
    }

    async fn alone_for<T>(
        &self,
        purpose: Purpose,
        work: impl AsyncFnOnce(&Place<R>) -> Result<T, Error>,
    ) -> Result<T, Error> {
        let database = self.store.database()?;
        let name = place::Names::of::<R>(purpose).next;
        let lease = Lease::try_acquire(database, &name, self.options.lease).await?;
        let lease = Arc::new(lease.ok_or(Error::RebuildRuns { projection: R::TABLE })?);
        let (held, reporter) = (lease.clone(), self.reporter.clone());
        let place = Place::of(&self.store, held, self.options, reporter, purpose)?;
        lease.keep_while(work(&place)).await
    }
}

/// Brings the new tables to the end of the log.
async fn bring_up<R: ReadModel>(place: &Place<R>) -> Result<(Built, Checkpoint), Error> {
    place.must_not_be_inline().await?;
    let (mut checkpoint, stage) = place.begin(Position::new(i64::MAX)).await?;
    place.reporter.begin(checkpoint.position());
    let mut events = 0;
    let end = place.store.safe_position().await?;
    if stage == Stage::Begun || end.get() - checkpoint.position().get() > NEAR {
        place.mark(&checkpoint, Stage::Begun).await?;
        fill::forget_beyond(place, &checkpoint).await?;
        events += fill::fill(place, &mut checkpoint, end).await?;
        may_fail!("rebuild-filled");
        place.index().await?;
        may_fail!("rebuild-indexed");
        place.mark(&checkpoint, Stage::Built).await?;
        may_fail!("rebuild-built");
    }
    events += follow::follow(place, &mut checkpoint).await?;
    let parked = place.parked().await?.len() as u64;
    Ok((Built { position: checkpoint.position(), events, parked }, checkpoint))
}

async fn bring_up_and_swap<R: ReadModel>(place: &Place<R>) -> Result<Built, Error> {
    let (built, mut checkpoint) = bring_up(place).await?;
    swap::swap(place, &mut checkpoint).await?;
    Ok(built)
}

/// Rebuilds a read model that is not up to date, unless another process does; then it waits for that.
pub(crate) async fn bring_up_to_date<R: ReadModel>(store: &EventStore) -> Result<(), Error> {
    let rebuild = Rebuild::<R>::of(store);
    loop {
        // Whoever had the lease before may just have done it.
        let rebuilt = rebuild.alone(async |place| match install::<R>(&place.database).await {
            Err(Error::Outdated { .. }) => bring_up_and_swap(place).await.map(drop),
            outcome => outcome,
        });
        match rebuilt.await {
            Err(Error::RebuildRuns { .. }) => tokio::time::sleep(WAIT).await,
            outcome => return outcome,
        }
    }
}

/// Why a task did not come to its end.
fn ended(error: tokio::task::JoinError) -> Error {
    match error.try_into_panic() {
        Ok(panic) => Error::Rebuild { source: panicked(&*panic) },
        Err(error) => Error::Rebuild { source: error.into() },
    }
}
