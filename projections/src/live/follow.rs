//! The driver: reads the log page by page, folds, and takes what it read into the rows.

use std::{sync::Arc, time::Duration};

use annals_eventstore::{
    Cursor, EventQuery, EventStore, Position,
    postgres::{Listener, Use},
};
use tokio_util::sync::CancellationToken;
use tracing::{error, warn};
use uuid::Uuid;

use super::{
    LiveOptions,
    state::{End, Shared},
};
use crate::{
    engine::{Engine, Steps},
    error::Error,
    read_model::ReadModel,
    rows::fold,
};

/// How often to look at a store in memory, which gives no nudges and takes no time.
const IN_MEMORY: Duration = Duration::from_millis(5);
/// How long to wait after a failure that may pass; twice as long after each further one, five times.
const FIRST_DELAY: Duration = Duration::from_millis(50);

pub(super) struct Follower<R: ReadModel> {
    store: EventStore,
    shared: Arc<Shared<R>>,
    options: LiveOptions<R>,
    steps: Steps<R>,
    /// `None` until it is known where to start.
    cursor: Option<Cursor>,
    listener: Option<Listener>,
    /// The last event that is in the rows.
    last: Option<(Position, Uuid)>,
    /// A connection was lost since the last page: another server may answer now, with a shorter log.
    is_interrupted: bool,
    /// How many there were since the last success.
    failures: u32,
}

/// Follows the log until it is told to stop, or fails for good.
pub(super) async fn follow<R: ReadModel>(
    mut follower: Follower<R>,
    shared: Arc<Shared<R>>,
    stop: CancellationToken,
) {
    let ending = EndWhenDropped(&shared);
    match stop.run_until_cancelled(follower.run()).await {
        None => shared.end(End::Told),
        Some(error) => {
            let cause = std::error::Error::source(&error).map(ToString::to_string);
            error!(projection = R::TABLE, %error, cause, "live read model stopped");
            shared.end(End::Failed(Arc::new(error)));
        }
    }
    drop(ending);
}

/// Whatever becomes of the task, nobody waits for it in vain.
struct EndWhenDropped<'a, R: ReadModel>(&'a Shared<R>);

impl<R: ReadModel> Drop for EndWhenDropped<'_, R> {
    fn drop(&mut self) {
        self.0.end(End::Died);
    }
}

/// Whether a page had events.
#[derive(PartialEq)]
enum Page {
    Full,
    Empty,
}

impl<R: ReadModel> Follower<R> {
    pub(super) fn new(store: &EventStore, shared: Arc<Shared<R>>, options: LiveOptions<R>) -> Self {
        Self {
            // It must not wait for the queries of others.
            store: store.using(Use::Project),
            shared,
            options,
            steps: Steps::new(),
            cursor: None,
            listener: None,
            last: None,
            is_interrupted: false,
            failures: 0,
        }
    }

    /// Folds all that is in the log now.
    pub(super) async fn catch_up(&mut self) -> Result<(), Error> {
        let end = loop {
            match self.store.safe_position().await {
                Ok(end) => break end,
                Err(error) => self.pause(error.into()).await?,
            }
        };
        loop {
            if let Err(error) = self.advance().await {
                self.pause(error).await?;
            } else if self.shared.look(|state| state.position) >= end {
                return Ok(());
            }
        }
    }

    async fn run(&mut self) -> Error {
        loop {
            let outcome = match self.advance().await {
                Ok(Page::Full) => continue,
                Ok(Page::Empty) => self.wait().await,
                Err(error) => Err(error),
            };
            if let Err(error) = outcome
                && let Err(error) = self.pause(error).await
            {
                return error;
            }
        }
    }

    /// Takes the next page of events into the rows.
    async fn advance(&mut self) -> Result<Page, Error> {
        // Reading from memory never waits; others must have their turn.
        tokio::task::yield_now().await;
        if self.is_interrupted {
            self.look_back().await?;
            self.is_interrupted = false;
        }
        let cursor = match &mut self.cursor {
            Some(cursor) => cursor,
            None => {
                let after = self.options.start.resolve(&self.store).await?;
                self.shared.begin(after);
                // With what is archived: it might be archived just before it is read.
                let query = EventQuery::log()
                    .after(after)
                    .categories(Engine::<R>::categories())
                    .include_archived()
                    .page_size(self.options.batch_size);
                self.cursor.insert(self.store.cursor(query))
            }
        };
        let events = cursor.next_page().await?;
        // Also where it found nothing, the log is complete up to here.
        let mut to = cursor.position();
        self.failures = 0;
        let page = if events.is_empty() { Page::Empty } else { Page::Full };
        let last = events.last().map(|event| (event.position, event.id));
        let folded = self.shared.look(|state| fold(&self.steps, &state.rows, events));
        let (batch, failure) = folded?;
        if let Some(failed) = &failure {
            to = Position::new(failed.position.get() - 1);
        }
        self.shared.merge(batch, to);
        self.last = last.or(self.last);
        failure.map_or(Ok(page), |failure| Err(failure.into()))
    }

    /// Looks whether the last event in the rows is still in the log.
    async fn look_back(&self) -> Result<(), Error> {
        let Some((position, id)) = self.last else { return Ok(()) };
        let before = Position::new(position.get() - 1);
        let query = EventQuery::log().after(before).up_to(position).include_archived();
        let found = self.store.cursor(query).next_page().await?;
        if found.iter().any(|event| event.id == id) {
            return Ok(());
        }
        Err(Error::EventLost { projection: R::TABLE, position })
    }

    /// Waits until there may be more events.
    async fn wait(&mut self) -> Result<(), Error> {
        let interval = self.options.poll_interval;
        let Ok(database) = self.store.database() else {
            tokio::time::sleep(interval.min(IN_MEMORY)).await;
            return Ok(());
        };
        match &self.listener {
            Some(listener) if !listener.is_closed() => {
                listener.wait(interval).await;
                self.is_interrupted = listener.is_closed();
            }
            // What is appended before it listens is looked for after.
            _ => self.listener = Some(database.listen().await?),
        }
        Ok(())
    }

    /// Waits after a failure that may pass; gives it back if not.
    async fn pause(&mut self, error: Error) -> Result<(), Error> {
        if !error.is_retryable() {
            return Err(error);
        }
        self.is_interrupted = true;
        let delay = FIRST_DELAY * 2_u32.pow(self.failures.min(5));
        self.failures += 1;
        let cause = std::error::Error::source(&error).map(ToString::to_string);
        warn!(projection = R::TABLE, %error, cause, ?delay, "live read model interrupted");
        tokio::time::sleep(delay).await;
        Ok(())
    }
}
