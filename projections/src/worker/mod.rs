//! Workers: they feed events to projections, and see to it that each slice of one has one worker.
//!
//! From the outside in: the *coordinator* of a projection gets leases for slices of it, a *runner* works on
//! one slice as long as its lease holds, and a *target* does what the projection does with events. All
//! runners of a process share one *feed*.

#[cfg(feature = "kafka")]
mod aside;
pub(crate) mod circuit;
mod context;
mod control;
mod coordinator;
pub(crate) mod failure;
mod feed;
#[cfg(feature = "kafka")]
mod foreign;
mod forgetting;
#[cfg(feature = "kafka")]
mod from_kafka;
mod latest;
mod options;
mod pace;
pub(crate) mod parking;
mod projection;
mod reacting;
mod reactor;
mod runner;
mod saga;
mod search;
mod sharing;
mod slice;
mod source;
mod sql;

use std::sync::Arc;

use annals_eventstore::{
    EventStore,
    postgres::{SqlProjection, Use},
};
use futures::FutureExt;
use tokio_util::sync::CancellationToken;

pub use self::failure::OnFailure;
use self::{
    context::{Context, Log},
    feed::Feed,
    options::{Options, Rebuilding},
    projection::RowProjection,
    reactor::Reactions,
    saga::Sagas,
    sql::SqlWorker,
};
pub(crate) use self::{failure::may_be_of_an_event, projection::Projection, slice::slice_of};
use crate::{
    error::Error,
    reactor::Reactor,
    read_model::ReadModel,
    saga::{Perform, Process},
    start::Start,
};

/// Runs projections, fed by the store or by Kafka.
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
    log: Log,
    /// What brings the events, if not the store.
    #[cfg(feature = "kafka")]
    topics: Option<crate::kafka::Source>,
    #[cfg(feature = "kafka")]
    instance: Option<String>,
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
        Self {
            store: store.clone(),
            projections: Vec::new(),
            options: Options::default(),
            log: Log::Ours,
            #[cfg(feature = "kafka")]
            topics: None,
            #[cfg(feature = "kafka")]
            instance: None,
        }
    }

    /// A worker on the events of another service, of which only its published contract is known. It has a database
    /// of its own: the store's schema holds checkpoints there, and no events.
    ///
    /// ```no_run
    /// # use annals_eventstore::{Category, Event, EventStore, Recorded};
    /// # use annals_projections::{Change, Project, ReadModel, Worker, kafka};
    /// # use serde::{Deserialize, Serialize};
    /// /// What the lending service publishes of loans, as far as it matters here.
    /// #[derive(Event, Serialize, Deserialize)]
    /// enum LoanPublished {
    ///     Granted { amount: i64 },
    /// }
    ///
    /// struct Loans;
    ///
    /// impl Category for Loans {
    ///     const NAME: &'static str = "loan";
    ///     type Event = LoanPublished;
    /// }
    ///
    /// #[derive(ReadModel, Clone)]
    /// #[read_model(table = "granted", from(Loans), history)]
    /// struct Granted {
    ///     #[read_model(key)]
    ///     loan: String,
    ///     amount: i64,
    /// }
    ///
    /// impl Project<LoanPublished> for Granted {
    ///     fn project(_: Option<Self>, event: &Recorded<LoanPublished>) -> Change<Self> {
    ///         let LoanPublished::Granted { amount } = event.event;
    ///         Change::Set(Granted { loan: event.stream.key().to_owned(), amount })
    ///     }
    /// }
    ///
    /// # async fn run() -> Result<(), Box<dyn std::error::Error>> {
    /// let own = EventStore::options().schema("lending_feed").connect("postgres://localhost/risk").await?;
    /// let lending = kafka::Source::new("localhost:9092", "lending")?;
    /// Worker::consumer(&own, lending).projection::<Granted>().run().await?;
    /// # Ok(()) }
    /// ```
    ///
    /// It begins with the first event that was ever published. Where topics do not hold that any more, or lose what was
    /// not applied yet, it ends with [`Error::Gone`]: nothing is left out in silence.
    ///
    /// The events of parked streams are kept in its database until they go on, since topics forget. Positions are those
    /// of the other service's log: [`AsOf::Position`](annals_eventstore::AsOf::Position) and
    /// [`Consistency::AtLeast`](crate::Consistency::AtLeast) work as ever, `AsOf::Time` is refused. Where the derive's
    /// `version`, columns or slices change, [`reset`](crate::reset) the read model: it is built anew from the topics.
    #[cfg(feature = "kafka")]
    pub fn consumer(own: &EventStore, topics: crate::kafka::Source) -> Self {
        Self { log: Log::Foreign, topics: Some(topics), ..Self::new(own) }
    }

    /// Has Kafka bring the events that this store's publisher has published, instead of the store. Checkpoints and rows are
    /// the same, so a projection may go over and back at any time.
    ///
    /// What the topics do not hold, or not any more, is replayed from the store, and the log and
    /// [`status`](crate::control::status) say so: at first, and after a loss. Parked streams are read from
    /// the store, too. So topics must carry the events of its categories as they are: all of them, and not mapped to
    /// public ones; with the metadata that projections use, too (`Publisher::builder(..).metadata(..)`).
    ///
    /// Where a projection has as many slices as its topics have partitions, a consumer group, `{context}.{projection}`,
    /// shares them out among the processes, and Kafka's tools show its lag. Other numbers of slices, one among
    /// them, are shared by leases, as with the store. Where the number of slices divides that of the partitions,
    /// a slice reads its own partitions only.
    #[cfg(feature = "kafka")]
    pub fn kafka(mut self, topics: crate::kafka::Source) -> Self {
        self.topics = Some(topics);
        self
    }

    /// Makes this process a static member of the consumer groups that share slices out, by a name that no other process
    /// has: one that is back within ten seconds after it ended has its slices again, and nothing moved meanwhile.
    #[cfg(feature = "kafka")]
    pub fn group_instance(mut self, name: impl Into<String>) -> Self {
        self.instance = Some(name.into());
        self
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

    /// Adds a saga, and who makes its calls. It hears what is recorded from now on; once it has a checkpoint, it goes
    /// on from there, wherever that is. Every process that runs it makes calls; one at a time hears events.
    ///
    /// While it is [paused](crate::control::pause) it hears no events and makes no calls; timers go off.
    pub fn saga<S: Process>(self, performer: impl Perform<S>) -> Self {
        self.saga_from(Start::End, performer)
    }

    /// The same; without a checkpoint, it begins there.
    pub fn saga_from<S: Process>(mut self, start: Start, performer: impl Perform<S>) -> Self {
        self.projections.push(Arc::new(Sagas::<S, _>::new(performer, start)));
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
        crate::metrics::describe();
        let Self { store, projections, options, log, .. } = self;
        #[cfg(feature = "kafka")]
        let (topics, instance) = (self.topics, self.instance);
        // Its reading too: it must not wait for the queries of others.
        let store = store.using(Use::Project);
        let database = store.database()?.clone();
        // All stop when one fails.
        let stop = stop.child_token();
        let feed = Feed::new(&store, options.poll_interval, &projections);
        let context = Arc::new(Context {
            store,
            database,
            options,
            stop: stop.clone(),
            feed,
            log,
            #[cfg(feature = "kafka")]
            topics,
            #[cfg(feature = "kafka")]
            instance,
            #[cfg(feature = "kafka")]
            applied: std::sync::Mutex::default(),
        });
        let feeding = {
            let context = context.clone();
            async move { context.feed().await }
        };
        let mut all = Vec::with_capacity(2 * projections.len());
        for projection in projections {
            all.push(coordinator::run(context.clone(), projection.clone()).boxed());
            let context = context.clone();
            all.push(async move { projection.beside(&context).await }.boxed());
        }
        let all = all.into_iter().map(|running| {
            let stop = stop.clone();
            running.inspect(move |result| {
                if result.is_err() {
                    stop.cancel();
                }
            })
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
