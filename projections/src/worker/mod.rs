//! Workers: they feed events to projections, and see to it that each slice of one has one worker.
//!
//! From the outside in: the *coordinator* of a projection gets leases for slices of it, a *runner* works on
//! one slice as long as its lease holds, and a *target* does what the projection does with events. All
//! runners of a process share one *feed*.

pub(crate) mod circuit;
mod control;
mod coordinator;
pub(crate) mod failure;
mod feed;
mod latest;
mod pace;
pub(crate) mod parking;
mod projection;
mod reacting;
mod reactor;
mod runner;
mod search;
mod slice;
mod sql;

use std::{sync::Arc, time::Duration};

use annals_eventstore::{
    EventStore,
    breaker::BreakerOptions,
    postgres::{LeaseOptions, SqlProjection, Use},
};
use futures::FutureExt;
use tokio_util::sync::CancellationToken;

pub use self::failure::OnFailure;
pub(crate) use self::{
    coordinator::keep, failure::may_be_of_an_event, projection::Projection, slice::slice_of,
};
use self::{feed::Feed, projection::RowProjection, reactor::Reactions, sql::SqlWorker};
use crate::{error::Error, reactor::Reactor, read_model::ReadModel};

/// Runs projections, fed by the store.
///
/// Several processes may run the same projection: one works on each slice of it, the others stand by and
/// take over when its lease ends. What events lead to and the checkpoint move in one transaction, so
/// whatever is killed when, each event is applied exactly once.
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
    projections: Vec<Arc<dyn Projection>>,
    options: Options,
}

#[derive(Clone, Copy, Debug)]
struct Options {
    batch_size: usize,
    poll_interval: Duration,
    lease: LeaseOptions,
    on_failure: OnFailure,
    attempts: u32,
    pause_after: usize,
    breaker: BreakerOptions,
    stop_within: Duration,
    rebuilding: Rebuilding,
}

/// Whether a worker rebuilds read models that are not up to date.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Rebuilding {
    Allowed,
    Refused,
}

impl std::fmt::Debug for Worker {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let names: Vec<_> = self.projections.iter().map(|projection| projection.label()).collect();
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
            on_failure: OnFailure::Park,
            attempts: 3,
            pause_after: 10,
            breaker: BreakerOptions::default()
                .failures(10)
                .cool_down(Duration::from_secs(1), Duration::from_secs(300)),
            stop_within: Duration::from_secs(10),
            rebuilding: Rebuilding::Allowed,
        };
        Self { store: store.clone(), projections: Vec::new(), options }
    }

    /// Adds the projection of a read model.
    pub fn projection<R: ReadModel>(mut self) -> Self {
        self.projections.push(Arc::new(RowProjection::<R>::new()));
        self
    }

    /// Adds a projection in SQL. The first worker has it create its tables.
    pub fn sql(mut self, projection: impl SqlProjection) -> Self {
        self.projections.push(Arc::new(SqlWorker::new(Arc::new(projection))));
        self
    }

    /// Adds a reactor. Its checkpoint begins where [`Reactor::start`] says, and moves once all events up to it are
    /// dealt with. Events behind it may have been reacted to as well, and are again after a crash, with
    /// the same [`Effect::id`](crate::Effect::id).
    pub fn reactor<R: Reactor>(mut self, reactor: R) -> Self {
        self.projections.push(Arc::new(Reactions::new(reactor)));
        self
    }

    /// How many events are applied in one transaction at most: 2,000 unless set. A worker begins with
    /// fewer, and takes as many as it gets done in a fraction of a second.
    pub fn batch_size(mut self, events: usize) -> Self {
        self.options.batch_size = events.max(1);
        self
    }

    /// How often to look for events when no nudge comes: every 100 ms unless set.
    pub fn poll_interval(mut self, interval: Duration) -> Self {
        self.options.poll_interval = interval;
        self
    }

    /// How leases are held. A worker that dies is replaced when its leases end.
    pub fn lease(mut self, options: LeaseOptions) -> Self {
        self.options.lease = options;
        self
    }

    /// What becomes of an event that fails by itself: [`OnFailure::Park`] unless set.
    pub fn on_failure(mut self, on_failure: OnFailure) -> Self {
        self.options.on_failure = on_failure;
        self
    }

    /// How often an event is tried whose failure may pass, before it counts as failed: 3 times unless
    /// set, with growing waits of a random length in between. Reactions and projections in SQL have such
    /// failures. That an event does not decode, or that a row is refused, does not pass.
    pub fn attempts(mut self, attempts: u32) -> Self {
        self.options.attempts = attempts.max(1);
        self
    }

    /// After how many failed streams in a row, with no event that succeeds in between, a read model
    /// pauses itself, since it is not the events that are wrong then: 10 unless set.
    pub fn pause_after(mut self, streams: usize) -> Self {
        self.options.pause_after = streams.max(1);
        self
    }

    /// After how many failures in a row, with no success in between, the circuit breaker of a reactor or a
    /// projection in SQL opens: 10 unless set. It is what they act on that is wrong then, and not the events. So
    /// nothing is tried for a while and no event is parked; then one event is tried, and if that succeeds,
    /// the breaker closes. [`status`](crate::control::status) shows it, and
    /// [`resume`](crate::control::resume) closes it at once.
    ///
    /// With fewer than [`attempts`](Self::attempts), no event is parked before the breaker has opened once.
    pub fn break_after(mut self, failures: u32) -> Self {
        self.options.breaker.failures = failures.max(1);
        self
    }

    /// How long an open circuit breaker leaves what failed alone: a second at first unless set, twice as long after
    /// each trial that fails, and five minutes at most.
    pub fn cool_down(mut self, first: Duration, most: Duration) -> Self {
        (self.options.breaker.first, self.options.breaker.most) = (first, most.max(first));
        self
    }

    /// How long reactions that run may go on when the worker is told to stop: 10 seconds unless set. What is not
    /// done then is dropped, and done anew by the next worker.
    pub fn stop_within(mut self, limit: Duration) -> Self {
        self.options.stop_within = limit;
        self
    }

    /// Refuses to work on read models and projections in SQL that are not up to date, instead of rebuilding them.
    pub fn without_rebuilding(mut self) -> Self {
        self.options.rebuilding = Rebuilding::Refused;
        self
    }

    /// Runs until a projection fails for a reason that does not pass.
    ///
    /// # Errors
    /// The first such failure, for example a table that the database does not let it write. Failures that
    /// may pass, such as a lost connection, are logged and tried again.
    pub async fn run(self) -> Result<(), Error> {
        self.run_until(CancellationToken::new()).await
    }

    /// Runs until it is told to stop, finishes what it has begun, and gives its leases back.
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
        let feed = Feed::new(&store, options.poll_interval, &projections);
        let context = Arc::new(Context { store, database, options, stop: stop.clone(), feed });
        let feeding = {
            let context = context.clone();
            async move { context.feed.run(&context.stop).await }
        };
        let all = projections.into_iter().map(|projection| {
            let stop = stop.clone();
            coordinator::run(context.clone(), projection)
                .inspect(move |result| {
                    if result.is_err() {
                        stop.cancel();
                    }
                })
                .boxed()
        });
        let working = async {
            let outcomes = futures::future::join_all(all).await;
            stop.cancel();
            outcomes
        };
        let ((), outcomes) = tokio::join!(feeding, working);
        outcomes.into_iter().collect()
    }
}

/// What every projection works on.
struct Context {
    store: EventStore,
    database: annals_eventstore::postgres::Database,
    options: Options,
    stop: CancellationToken,
    feed: Feed,
}
