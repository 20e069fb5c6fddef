//! The driver: who publishes, from where, and what happens when something fails.
//!
//! All recovery takes one path. A term begins with the lease and the checkpoint and ends with the
//! first failure of any kind; the next term starts over from the checkpoint with a new producer.

use std::{sync::Arc, time::Duration};

use tokio::{
    sync::watch,
    time::{sleep, timeout},
};
use tokio_util::sync::{CancellationToken, DropGuard};

use super::{
    circuit::Passage,
    delivery::Delivery,
    front::{Front, Page},
    metrics::{self, Active},
    options::{Builder, Settings},
    producer::{Failure, Job, Producer, Report},
    progress::{Progress, Reporter, State},
    progress_record::ProgressRecord,
    recovery::{Ended, delays},
    start::Start,
};
use crate::{
    breaker::CircuitState,
    error::{Error, chain},
    fail_points::fail_point,
    ids::Position,
    postgres::{Checkpoint, Database, Lease, Listener, database_error},
    query::Archived,
    store::EventStore,
};

/// What is in flight when the publisher is stopped gets this long to arrive.
const GRACE: Duration = Duration::from_millis(500);
/// The transaction that is open when a term ends gets this long to be aborted; the next term does it
/// otherwise.
const ABORT: Duration = Duration::from_millis(400);
/// The lease gets this long to be given back; it ends by itself anyway.
const RELEASE: Duration = Duration::from_millis(300);
/// How often to look at the end of the log, for the lag.
const LOOK: Duration = Duration::from_secs(1);
/// How often to look at a circuit that is open, and the pause before the lease is taken again then.
const CIRCUIT_PAUSE: Duration = Duration::from_millis(100);
/// A publisher that is paused while it moves the checkpoint keeps it locked for its successor, until the database ends
/// its transaction.
const PATIENCE: &str = "set local idle_in_transaction_session_timeout = '5s'";
/// Pages end with the event with which their payloads come to so many bytes.
const PAGE_BYTES: usize = 16 << 20;

/// Publishes the events of a store to Kafka. See the [module](super) for what it guarantees.
#[derive(Debug)]
pub struct Publisher {
    pub(super) store: EventStore,
    pub(super) settings: Arc<Settings>,
    pub(super) reporter: Reporter,
}

impl Publisher {
    /// The name of the publisher's checkpoint: `Checkpoint::position_of(database,
    /// Publisher::CHECKPOINT)` tells how far the store is published, in any program.
    pub const CHECKPOINT: &'static str = "publisher:kafka";
    /// The name of the active publisher's lease.
    const LEASE: &'static str = "publisher:kafka";

    /// A publisher to the brokers (`host:port,...`) on behalf of a context, the name that its topics
    /// start with.
    pub fn builder(brokers: impl Into<String>, context: impl Into<String>) -> Builder {
        Builder::new(brokers.into(), context.into())
    }

    /// How far it has come and what it is doing, now and whenever that changes. When
    /// [`run`](Self::run) has ended, the receiver is closed and keeps the last values.
    pub fn progress(&self) -> watch::Receiver<Progress> {
        self.reporter.subscribe()
    }

    /// Publishes until something fails that does not get better by waiting.
    ///
    /// # Errors
    /// As [`run_until`](Self::run_until).
    pub async fn run(self) -> Result<(), Error> {
        self.run_until(CancellationToken::new()).await
    }

    /// Publishes until it is told to stop.
    ///
    /// A broker that is down, a circuit that is open ([`Builder::circuit`]), a database that is down, a lost lease: it
    /// waits, tries again and says so in [`progress`](Self::progress). When stopped it returns within about a second, whatever is in
    /// flight: that is delivered by then, or its transaction is aborted.
    ///
    /// Cancellation safe: when the future is dropped, publishing stops at once; the next publisher has to
    /// wait for the end of the lease. Published at least once, some events may be published again then.
    ///
    /// # Errors
    /// What does not get better by waiting: [`Error::Broker`] if the broker refuses a topic, if topics are
    /// not as declared (its source is [`TopicDifferences`](super::TopicDifferences) then), if an event has
    /// no public form ([`Builder::map`]) or no topic ([`Builder::route`]), or if the broker refuses an event
    /// for good, as it does one above the topic's `max.message.bytes` (the error names event, stream,
    /// position and size; the events behind it in its stream are not published);
    /// [`Error::PublishedElsewhere`] if the topics hold what this log does not; or a failure of the database
    /// that is not [retryable](Error::is_retryable).
    pub async fn run_until(self, stop: CancellationToken) -> Result<(), Error> {
        let database = self.store.database()?.clone();
        let context = &self.settings.context;
        metrics::begin(context);
        let mut pauses = delays();
        loop {
            let published = self.reporter.now().published;
            let pause = match self.term(&database, &stop).await {
                Ok(()) => return Ok(()),
                Err(Ended::Failed(error)) => return Err(error),
                Err(Ended::Fenced) => {
                    tracing::warn!(context, "another publisher has taken over; this one stands by");
                    self.reporter.state(State::Standby);
                    metrics::interrupted(context);
                    self.retry_interval()
                }
                Err(Ended::Resumed) => continue,
                Err(Ended::Open(reason)) => {
                    self.reporter.state(State::CircuitOpen { reason });
                    metrics::interrupted(context);
                    pauses = delays();
                    CIRCUIT_PAUSE
                }
                Err(Ended::Interrupted(error)) => {
                    self.reporter.state(State::Interrupted { reason: chain(&error) });
                    metrics::interrupted(context);
                    if self.reporter.now().published > published {
                        pauses = delays();
                    }
                    pauses.next().unwrap_or_default()
                }
            };
            if stop.run_until_cancelled(sleep(pause)).await.is_none() {
                return Ok(());
            }
        }
    }

    /// Waits for the lease, then publishes until something fails or it is told to stop.
    async fn term(&self, database: &Database, stop: &CancellationToken) -> Result<(), Ended> {
        let Some(lease) = stop.run_until_cancelled(self.stand_by(database)).await else {
            return Ok(());
        };
        let lease = lease?;
        fail_point!("publisher-lease-taken");
        let _active = Active::new(&self.settings.context);
        let nothing_open = CancellationToken::new();
        let guard = nothing_open.clone().drop_guard();
        let ended = tokio::select! {
            ended = self.publish(database, lease.epoch(), guard, stop) => ended,
            error = lease.keep() => Err(error.into()),
            () = self.watch_lag() => Ok(()),
            () = async { stop.cancelled().await; sleep(GRACE).await } => Ok(()),
        };
        if timeout(ABORT, nothing_open.cancelled()).await.is_err() {
            tracing::debug!("the next publisher ends what is still open");
        }
        match timeout(RELEASE, lease.release()).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::debug!(error = chain(&error), "the lease ends by itself"),
            Err(_) => tracing::debug!("the lease ends by itself"),
        }
        ended
    }

    /// Waits until no other publisher holds the lease.
    async fn stand_by(&self, database: &Database) -> Result<Lease, Error> {
        loop {
            let lease = Lease::try_acquire(database, Self::LEASE, self.settings.lease).await?;
            if let Some(lease) = lease {
                return Ok(lease);
            }
            self.reporter.state(State::Standby);
            if let Some(position) = Checkpoint::position_of(database, Self::CHECKPOINT).await? {
                self.reporter.position(position);
            }
            sleep(self.retry_interval()).await;
        }
    }

    fn retry_interval(&self) -> Duration {
        self.settings.lease.time_to_live / 3
    }

    /// Publishes, page by page, from where Kafka and the checkpoint say.
    async fn publish(
        &self,
        database: &Database,
        epoch: i64,
        ended: DropGuard,
        stop: &CancellationToken,
    ) -> Result<(), Ended> {
        // With the lease: or halting one publisher would be to start another.
        let Some(passage) = stop.run_until_cancelled(self.passage()).await else { return Ok(()) };
        let mut checkpoint = Checkpoint::take_over(database, Self::CHECKPOINT, epoch).await?;
        self.reporter.position(checkpoint.position());
        let looks = if passage.is_trial() { self.reporter.now().state } else { State::Connecting };
        self.reporter.state(looks.clone());
        let id = self.transactional_id(database).await?;
        let categories = database.categories().await?;
        let (settings, at) = (self.settings.clone(), checkpoint.position());
        let mut producer = Producer::start(settings, categories, id.clone(), at, passage, ended)?;
        // Nothing is on its way yet that had to be waited for.
        let Some(told) = stop.run_until_cancelled(self.ready(&mut producer, looks)).await else {
            return Ok(());
        };
        let start = Start::of(told?, checkpoint.position());
        start.check_log(database, &id).await?;
        self.reporter.position(start.position);
        self.reporter.state(State::Publishing);

        let mut front = Front::new(start, checkpoint.position());
        let mut listener = None;
        let mut page = self.page(front.position()).await?;
        while !stop.is_cancelled() && !self.is_halted() {
            if page.events.is_empty() {
                // Positions that rolled back appends have left.
                front.pass(&page);
                if front.is_due_to_tell() {
                    producer.start_job(Job::Deliver(front.step(&page)));
                    self.done(&mut producer).await?;
                    front.told();
                }
                self.reporter.position(front.position());
                self.advance_if_due(database, &mut checkpoint, &mut front).await?;
                let pause = front.due_in().min(self.settings.poll_interval);
                let wait = self.wait(database, &mut listener, pause);
                if stop.run_until_cancelled(wait).await.is_none() {
                    break;
                }
                page = self.page(front.position()).await?;
                continue;
            }
            self.reporter.behind(page.events.first().map(|event| event.recorded_at));
            producer.start_job(Job::Deliver(front.step(&page)));
            // The next page is read while this one is on its way, if it is there for certain: what comes in
            // meanwhile would have to wait for the page after it.
            let next =
                async { if page.is_full { self.page(page.end).await.map(Some) } else { Ok(None) } };
            let (delivered, next) = tokio::join!(self.done(&mut producer), next);
            let published = delivered?;
            front.pass(&page);
            front.told();
            if self.settings.delivery == Delivery::AtLeastOnce {
                self.advance(database, &mut checkpoint, &mut front).await?;
            }
            self.reporter.published(published, page.end);
            metrics::published(&self.settings.context, published);
            self.advance_if_due(database, &mut checkpoint, &mut front).await?;
            page = match next? {
                Some(page) => page,
                None => self.page(front.position()).await?,
            };
        }
        if !front.is_told() {
            producer.start_job(Job::Deliver(front.step(&Page::empty(front.position()))));
            self.done(&mut producer).await?;
        }
        producer.start_job(Job::Finish);
        self.done(&mut producer).await?;
        self.advance(database, &mut checkpoint, &mut front).await?;
        if stop.is_cancelled() {
            return Ok(());
        }
        drop(producer);
        // The next term begins when the circuit lets it, and this one keeps the lease until then.
        stop.run_until_cancelled(self.passage()).await.map_or(Ok(()), |_| Err(Ended::Resumed))
    }

    /// Whether the circuit was opened by hand, or by those it is shared with.
    fn is_halted(&self) -> bool {
        self.settings.circuit.state() != CircuitState::Closed
    }

    /// Waits until the circuit lets a session through.
    async fn passage(&self) -> Passage {
        let circuit = &self.settings.circuit;
        loop {
            let wait = match Passage::ask(circuit) {
                Ok(passage) => return passage,
                Err(wait) => wait,
            };
            let reason = match self.reporter.now().state {
                _ if circuit.by_hand().is_some() => "opened by hand".to_owned(),
                State::BrokerUnreachable { reason }
                | State::Interrupted { reason }
                | State::CircuitOpen { reason } => reason,
                _ => "of failures before".to_owned(),
            };
            self.reporter.state(State::CircuitOpen { reason });
            // It is nothing where nobody knows when.
            let wait = if wait.is_zero() { CIRCUIT_PAUSE } else { wait };
            sleep(wait.min(CIRCUIT_PAUSE)).await;
        }
    }

    /// What the store's publishers are called at the broker.
    pub(super) async fn transactional_id(&self, database: &Database) -> Result<Arc<str>, Error> {
        let Settings { context, store, .. } = &*self.settings;
        let store = match store {
            Some(name) => name.clone(),
            None => {
                let failed = |error| database_error("ask for the name of the database", error);
                let client = database.client().await?;
                let row = client.query_one("select current_database()::text", &[]).await;
                let name: String = row.map_err(failed)?.get(0);
                format!("{name}.{}", database.schema().name())
            }
        };
        Ok(format!("{context}.publisher.{store}").into())
    }

    /// Waits until the producer takes jobs. Returns how far the store is published, by what the broker has.
    async fn ready(
        &self,
        producer: &mut Producer,
        looks: State,
    ) -> Result<Option<ProgressRecord>, Failure> {
        loop {
            match producer.report().await {
                Report::Ready(progress) => return Ok(progress),
                report => self.pass_on(report, looks.clone())?,
            }
        }
    }

    /// Waits until the producer is done, and passes on what it says meanwhile. How many events are
    /// published.
    async fn done(&self, producer: &mut Producer) -> Result<usize, Failure> {
        loop {
            match producer.report().await {
                Report::Done(published) => return Ok(published),
                report => self.pass_on(report, State::Publishing)?,
            }
        }
    }

    fn pass_on(&self, report: Report, reachable: State) -> Result<(), Failure> {
        match report {
            Report::Failed(failure) => return Err(failure),
            Report::Reachable => self.reporter.state(reachable),
            // A trial that fails says so itself.
            Report::Unreachable(_) if matches!(reachable, State::CircuitOpen { .. }) => {}
            Report::Unreachable(reason) => {
                self.reporter.state(State::BrokerUnreachable { reason });
            }
            // Each comes when it is waited for.
            Report::Ready(_) | Report::Done(_) => {}
        }
        Ok(())
    }

    /// The page of the log after a position.
    async fn page(&self, after: Position) -> Result<Page, Error> {
        // Before the page, and never in the same statement.
        let safe = self.store.safe_position().await?;
        self.reporter.end(safe);
        if safe <= after {
            return Ok(Page::empty(after));
        }
        let limit = self.settings.batch;
        let categories = self.settings.publication.categories();
        let events = self
            .store
            .read_page_within(Archived::Excluded, categories, after, safe, limit, PAGE_BYTES)
            .await?;
        let bytes: usize = events.iter().map(|event| event.event.as_bytes().len()).sum();
        let is_full = events.len() == limit || bytes >= PAGE_BYTES;
        let end = match events.last() {
            Some(last) if is_full => last.position,
            _ => safe,
        };
        Ok(Page { events: events.into(), end, is_full })
    }

    /// Tells how far the active publisher is behind, until it is dropped.
    async fn watch_lag(&self) {
        loop {
            metrics::lag(&self.settings.context, &self.reporter.now());
            sleep(LOOK).await;
            // Also while the broker does not answer, and nothing is read.
            match self.store.safe_position().await {
                Ok(safe) => self.reporter.end(safe),
                Err(error) => tracing::debug!(error = chain(&error), "the lag is not known"),
            }
            if let Err(error) = self.look_behind().await {
                tracing::debug!(error = chain(&error), "the age of the lag is not known");
            }
        }
    }

    /// Looks since when it is behind, where no page of the log was read for want of a broker.
    async fn look_behind(&self) -> Result<(), Error> {
        let Progress { position, end, behind_since, .. } = self.reporter.now();
        if behind_since.is_some() || end <= position {
            return Ok(());
        }
        let categories = self.settings.publication.categories();
        let next = self
            .store
            .read_page_within(Archived::Excluded, categories, position, end, 1, PAGE_BYTES)
            .await?;
        if let Some(event) = next.first() {
            self.reporter.found_behind(position, event.recorded_at);
        }
        Ok(())
    }

    async fn advance_if_due(
        &self,
        database: &Database,
        checkpoint: &mut Checkpoint,
        front: &mut Front,
    ) -> Result<(), Error> {
        if front.is_due_to_keep() {
            self.advance(database, checkpoint, front).await
        } else {
            Ok(())
        }
    }

    /// Moves the checkpoint over what is in the topics.
    async fn advance(
        &self,
        database: &Database,
        checkpoint: &mut Checkpoint,
        front: &mut Front,
    ) -> Result<(), Error> {
        let to = front.position();
        if to == checkpoint.position() {
            return Ok(());
        }
        fail_point!("publisher-before-checkpoint");
        let failed = |error| database_error("move the publisher's checkpoint", error);
        let mut client = database.client().await?;
        let transaction = client.transaction().await.map_err(failed)?;
        transaction.batch_execute(PATIENCE).await.map_err(failed)?;
        checkpoint.advance(&transaction, to).await?;
        transaction.commit().await.map_err(failed)?;
        checkpoint.moved(to);
        front.kept();
        fail_point!("publisher-checkpoint-moved");
        Ok(())
    }

    /// Waits for a nudge, or until the time is over.
    async fn wait(&self, database: &Database, listener: &mut Option<Listener>, time: Duration) {
        if listener.as_ref().is_none_or(Listener::is_closed) {
            match database.listen().await {
                Ok(listening) => {
                    *listener = Some(listening);
                    // What was appended before was announced to nobody: look at once.
                    return;
                }
                Err(error) => {
                    tracing::debug!(error = chain(&error), "polling without nudges");
                    *listener = None;
                }
            }
        }
        match listener {
            Some(listener) => listener.wait(time).await,
            None => sleep(time).await,
        }
    }
}
