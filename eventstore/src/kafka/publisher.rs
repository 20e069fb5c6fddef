//! The driver: who publishes, from where, and what happens when something fails.
//!
//! All recovery takes one path. A term begins with the lease and the checkpoint and ends with the
//! first failure of any kind; the next term starts over from the checkpoint with a new producer.

use std::{sync::Arc, time::Duration};

use tokio::{
    sync::watch,
    time::{sleep, timeout},
};
use tokio_util::sync::CancellationToken;

use super::{
    options::{Builder, Settings},
    producer::{Failure, Producer, Report},
    progress::{Progress, Reporter, State},
    recovery::{Ended, delays, keep},
};
use crate::{
    error::{Error, chain},
    event::Recorded,
    ids::Position,
    postgres::{Checkpoint, Database, Lease, Listener, database_error},
    store::EventStore,
};

/// What is in flight when the publisher is stopped gets this long to arrive. Otherwise it would be
/// published again later.
const GRACE: Duration = Duration::from_millis(500);
/// The lease gets this long to be given back; it ends by itself anyway.
const RELEASE: Duration = Duration::from_millis(300);

/// Publishes the events of a store to Kafka. See the [module](super) for what it guarantees.
#[derive(Debug)]
pub struct Publisher {
    pub(super) store: EventStore,
    pub(super) settings: Arc<Settings>,
    pub(super) reporter: Reporter,
}

/// A part of the log.
struct Page {
    events: Arc<[Recorded]>,
    /// What comes after the page lies above this position.
    end: Position,
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
    /// A broker that is down, a database that is down, a lost lease: it waits, tries again and says
    /// so in [`progress`](Self::progress). When stopped it returns within a second, whatever is in
    /// flight.
    ///
    /// Cancellation safe: when the future is dropped, publishing stops at once and some events may
    /// be published again later; the next publisher has to wait for the end of the lease.
    ///
    /// # Errors
    /// What does not get better by waiting: [`Error::Broker`] if the broker refuses a topic, or topics are
    /// not as declared (its source is [`TopicDifferences`](super::TopicDifferences) then), or an event has
    /// no public form ([`Builder::map`]) or no topic ([`Builder::route`]), or the broker refuses an event for good, as it does one above the topic's `max.message.bytes` (the error
    /// names event, stream, position and size; the events behind it in its stream are not
    /// published); or a failure of the database that is not [retryable](Error::is_retryable).
    pub async fn run_until(self, stop: CancellationToken) -> Result<(), Error> {
        let database = self.store.database()?.clone();
        let mut pauses = delays();
        loop {
            let published = self.reporter.subscribe().borrow().published;
            let pause = match self.term(&database, &stop).await {
                Ok(()) => return Ok(()),
                Err(Ended::Failed(error)) => return Err(error),
                Err(Ended::Fenced) => {
                    tracing::warn!("another publisher has taken over; this one stands by");
                    self.reporter.state(State::Standby);
                    self.retry_interval()
                }
                Err(Ended::Interrupted(error)) => {
                    self.reporter.state(State::Interrupted { reason: chain(&error) });
                    if self.reporter.subscribe().borrow().published > published {
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
        let ended = tokio::select! {
            ended = self.publish(database, lease.epoch(), stop) => ended,
            error = keep(&lease, self.settings.lease.time_to_live) => Err(error.into()),
            () = async { stop.cancelled().await; sleep(GRACE).await } => Ok(()),
        };
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

    /// Publishes, page by page, from the checkpoint on.
    async fn publish(
        &self,
        database: &Database,
        epoch: i64,
        stop: &CancellationToken,
    ) -> Result<(), Ended> {
        let mut checkpoint = Checkpoint::take_over(database, Self::CHECKPOINT, epoch).await?;
        self.reporter.position(checkpoint.position());
        self.reporter.state(State::Connecting);
        let categories = database.categories().await?;
        let mut producer = Producer::start(self.settings.clone(), categories)?;
        self.done(&mut producer).await?;
        self.reporter.state(State::Publishing);

        let mut listener = None;
        let mut page = self.page(checkpoint.position()).await?;
        while !stop.is_cancelled() {
            if page.events.is_empty() {
                // Positions that rolled back appends have left.
                self.advance(database, &mut checkpoint, page.end).await?;
                self.reporter.position(page.end);
                let wait = self.wait(database, &mut listener);
                if stop.run_until_cancelled(wait).await.is_none() {
                    return Ok(());
                }
                page = self.page(checkpoint.position()).await?;
                continue;
            }
            producer.send(page.events.clone());
            // The next page is read while this one is on its way.
            let (delivered, next) = tokio::join!(self.done(&mut producer), self.page(page.end));
            let published = delivered?;
            self.advance(database, &mut checkpoint, page.end).await?;
            self.reporter.published(published, page.end);
            page = next?;
        }
        Ok(())
    }

    /// Waits until the producer is done, and passes on what it says meanwhile. How many events are
    /// published.
    async fn done(&self, producer: &mut Producer) -> Result<usize, Failure> {
        loop {
            match producer.report().await {
                Report::Done(published) => return Ok(published),
                Report::Failed(failure) => return Err(failure),
                Report::Reachable => self.reporter.state(State::Publishing),
                Report::Unreachable(reason) => {
                    self.reporter.state(State::BrokerUnreachable { reason });
                }
            }
        }
    }

    /// The page of the log after a position.
    async fn page(&self, after: Position) -> Result<Page, Error> {
        // Before the page, and never in the same statement.
        let safe = self.store.safe_position().await?;
        if safe <= after {
            return Ok(Page { events: Arc::new([]), end: after });
        }
        let categories = self.settings.publication.categories();
        let events = self.store.read_page(categories, after, safe, self.settings.batch).await?;
        let end = match events.last() {
            Some(last) if events.len() == self.settings.batch => last.position,
            _ => safe,
        };
        Ok(Page { events: events.into(), end })
    }

    /// Moves the checkpoint over what the broker has acknowledged.
    async fn advance(
        &self,
        database: &Database,
        checkpoint: &mut Checkpoint,
        to: Position,
    ) -> Result<(), Error> {
        if to == checkpoint.position() {
            return Ok(());
        }
        let failed = |error| database_error("move the publisher's checkpoint", error);
        let mut client = database.client().await?;
        let transaction = client.transaction().await.map_err(failed)?;
        checkpoint.advance(&transaction, to).await?;
        transaction.commit().await.map_err(failed)?;
        checkpoint.moved(to);
        Ok(())
    }

    /// Waits for a nudge or the next poll.
    async fn wait(&self, database: &Database, listener: &mut Option<Listener>) {
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
            Some(listener) => listener.wait(self.settings.poll_interval).await,
            None => sleep(self.settings.poll_interval).await,
        }
    }
}
