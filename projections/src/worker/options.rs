//! How a worker works.

use std::time::Duration;

use annals_eventstore::{breaker::BreakerOptions, postgres::LeaseOptions};

use super::{OnFailure, Worker};

#[derive(Clone, Copy, Debug)]
pub(super) struct Options {
    pub(super) batch_size: usize,
    pub(super) poll_interval: Duration,
    pub(super) lease: LeaseOptions,
    pub(super) on_failure: OnFailure,
    pub(super) attempts: u32,
    pub(super) pause_after: usize,
    pub(super) breaker: BreakerOptions,
    pub(super) stop_within: Duration,
    pub(super) rebuilding: Rebuilding,
    pub(super) keep_history: Option<Duration>,
}

/// Whether a worker rebuilds read models that are not up to date.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Rebuilding {
    Allowed,
    Refused,
}

impl Default for Options {
    fn default() -> Self {
        Self {
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
            keep_history: None,
        }
    }
}

impl Worker {
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

    /// For how long the worker's read models keep their history: for ever unless set. What rows were before that is
    /// [forgotten](crate::forget_history), every hour or, where history is kept for less than a day, more often, by one
    /// worker at a time. Ages are counted from the times at which events were recorded.
    ///
    /// ```no_run
    /// # use annals_eventstore::EventStore;
    /// # use annals_projections::{ReadModel, Worker};
    /// # async fn run<R: ReadModel>(store: EventStore) -> Result<(), annals_projections::ProjectionError> {
    /// let three_years = std::time::Duration::from_secs(3 * 365 * 24 * 60 * 60);
    /// Worker::new(&store).projection::<R>().keep_history(three_years).run().await
    /// # }
    /// ```
    ///
    /// A read model that is to be kept for another time has a worker of its own. Where the events are [another
    /// service's](Self::consumer), whose times are not known here, nothing is forgotten.
    pub fn keep_history(mut self, age: Duration) -> Self {
        self.options.keep_history = Some(age);
        self
    }

    /// Refuses to work on read models and projections in SQL that are not up to date, instead of rebuilding them.
    pub fn without_rebuilding(mut self) -> Self {
        self.options.rebuilding = Rebuilding::Refused;
        self
    }
}
