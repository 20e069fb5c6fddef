//! How a live read model starts and follows.

use std::{sync::Arc, time::Duration};

use annals_eventstore::{EventStore, Position};
use tokio_util::sync::CancellationToken;
use tracing::Instrument;

use super::{
    Live,
    follow::{Follower, follow},
    state::Shared,
};
use crate::{error::Error, read_model::ReadModel, start::Start};

/// How a live read model starts and follows the log. Get it from [`Live::options`].
///
/// ```no_run
/// # use annals_eventstore::{AsOf, EventStore};
/// # use annals_projections::{Consistency, Live, QueryReadModels, ReadModel, Start};
/// # use std::time::Duration;
/// # async fn run<R: ReadModel>(store: EventStore) -> Result<(), Box<dyn std::error::Error>> {
/// // What has happened since this morning:
/// let morning = "2012-01-01T06:00:00Z".parse()?;
/// let live = Live::<R>::options().since(Start::Time(morning)).start(&store).await?;
///
/// // From the rows of a table with history, so that the log need not be folded again:
/// let at = store.safe_position().await?;
/// let fresh = Consistency::AtLeast(at, Duration::from_secs(5));
/// let rows = store.query::<R>().as_of(AsOf::Position(at)).consistency(fresh).all().await?;
/// let live = Live::<R>::options().with_rows(at, rows).start(&store).await?;
/// # Ok(()) }
/// ```
#[derive(Clone, Debug)]
#[must_use = "it does nothing until it is started"]
pub struct LiveOptions<R> {
    pub(super) start: Start,
    rows: Vec<R>,
    pub(super) batch_size: usize,
    pub(super) poll_interval: Duration,
    buffer: usize,
}

impl<R> Default for LiveOptions<R> {
    fn default() -> Self {
        Self {
            start: Start::Beginning,
            rows: Vec::new(),
            batch_size: 2000,
            poll_interval: Duration::from_millis(100),
            buffer: 4096,
        }
    }
}

impl<R: ReadModel> LiveOptions<R> {
    /// Where in the log it starts, without rows: at the beginning unless set. From anywhere else on, the rows
    /// are a fold of what came since.
    pub fn since(mut self, start: Start) -> Self {
        (self.start, self.rows) = (start, Vec::new());
        self
    }

    /// Starts with these rows, which must be those as of this position, and with the events after it. Of two
    /// rows with one key the latter counts.
    pub fn with_rows(mut self, position: Position, rows: impl IntoIterator<Item = R>) -> Self {
        (self.start, self.rows) = (Start::Position(position), rows.into_iter().collect());
        self
    }

    /// How many events are read, and become visible, at a time at most: 2,000 unless set.
    pub fn batch_size(mut self, events: usize) -> Self {
        self.batch_size = events.max(1);
        self
    }

    /// How often to look for events when no nudge comes: every 100 ms unless set. A store in memory gives no
    /// nudges and is looked at every 5 ms, or more often if set.
    pub fn poll_interval(mut self, interval: Duration) -> Self {
        self.poll_interval = interval;
        self
    }

    /// How many changes are kept at least for subscribers that are slow: 4,096 unless set, a million at most.
    /// A batch's changes come at once, so less than a batch's is too few.
    pub fn buffer(mut self, changes: usize) -> Self {
        self.buffer = changes.clamp(1, 1_000_000);
        self
    }

    /// Starts, and returns once everything is folded that is safe to read now.
    ///
    /// Cancellation safe: nothing stays behind.
    ///
    /// # Errors
    /// As [`Live::start`]; also [`BeyondEnd`](annals_eventstore::Error::BeyondEnd) or
    /// [`Future`](annals_eventstore::Error::Future), if the log has not come to where it starts.
    pub async fn start(self, store: &EventStore) -> Result<Live<R>, Error> {
        let (mut follower, shared) = self.prepare(store);
        follower.catch_up().await?;
        Ok(run(follower, shared))
    }

    /// Starts without waiting. What would be an error of [`start`](Self::start), all that asks for rows gets.
    ///
    /// # Panics
    /// Outside of a Tokio runtime.
    pub fn start_in_background(self, store: &EventStore) -> Live<R> {
        let (follower, shared) = self.prepare(store);
        run(follower, shared)
    }

    fn prepare(mut self, store: &EventStore) -> (Follower<R>, Arc<Shared<R>>) {
        let rows = std::mem::take(&mut self.rows);
        let position = match self.start {
            Start::Position(position) => position,
            _ => Position::START,
        };
        let shared = Arc::new(Shared::new(rows, position, self.buffer));
        (Follower::new(store, shared.clone(), self), shared)
    }
}

fn run<R: ReadModel>(follower: Follower<R>, shared: Arc<Shared<R>>) -> Live<R> {
    let stop = CancellationToken::new();
    tokio::spawn(follow(follower, shared.clone(), stop.clone()).in_current_span());
    Live { shared, _stop_when_dropped: Arc::new(stop.clone().drop_guard()), stop }
}
