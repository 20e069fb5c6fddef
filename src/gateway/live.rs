//! Live updates: a row whenever it changes, and what becomes of all rows, as server-sent events.
//!
//! A client has lost nothing when its connection ends: its last event's id is the position to go on from. So an id
//! goes out only with what leads up to it.

use std::{convert::Infallible, marker::PhantomData, sync::Arc, time::Duration};

use annals_eventstore::{AsOf, EventStore, Position, Waits};
use annals_projections::{ProjectionError, QueryReadModels, ReadModel, RowDifference, async_trait};
use axum::response::sse::{Event, KeepAlive, Sse};
use futures::{Stream, StreamExt, stream};
use serde::Serialize;
use serde_json::{Value, json};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};

use super::{follow::Follow, problem::Problem};

/// How many streams there are, unless set.
pub(super) const STREAMS: usize = 1024;
/// How many positions a client may be behind, unless set.
pub(super) const CATCH_UP: u64 = 100_000;
/// How many positions are read at once, which bounds what a stream has in memory.
const PAGE: i64 = 1000;
/// When clients come back after a stream that failed.
const COME_BACK: Duration = Duration::from_secs(5);

/// So many streams, each until its client has gone.
pub(super) struct Live {
    places: Arc<Semaphore>,
    limit: usize,
    catch_up: i64,
}

impl Live {
    pub(super) fn new(streams: usize, catch_up: u64) -> Self {
        let limit = streams.clamp(1, Semaphore::MAX_PERMITS);
        let catch_up = i64::try_from(catch_up).unwrap_or(i64::MAX);
        Self { places: Arc::new(Semaphore::new(limit)), limit, catch_up }
    }

    fn enter(&self) -> Result<OwnedSemaphorePermit, Problem> {
        let place = self.places.clone().try_acquire_owned();
        place.map_err(|_| Problem::overloaded("live streams", self.limit))
    }

    /// A row as it is, and whenever it is another.
    pub(super) fn row<R: ReadModel + Serialize>(
        &self,
        store: &EventStore,
        key: R::Key,
        follow: &Follow<R>,
    ) -> Result<Sse<impl Stream<Item = Result<Event, Infallible>> + use<R>>, Problem> {
        let place = self.enter()?;
        let moved = follow.subscribe(store);
        let row = Row { source: OneRow::<R> { store: store.clone(), key }, moved, last: None };
        let events = stream::unfold(Some(row), |row| async {
            let mut row = row?;
            match row.next().await? {
                Ok(event) => Some((event, Some(row))),
                Err(Unreadable) => Some((failed(), None)),
            }
        });
        Ok(sse(events, place))
    }

    /// What becomes of all rows, from a position on, or from now on.
    pub(super) fn changes<R: ReadModel + Serialize>(
        &self,
        store: &EventStore,
        since: Option<Position>,
        follow: &Follow<R>,
    ) -> Result<Sse<impl Stream<Item = Result<Event, Infallible>> + use<R>>, Problem> {
        let place = self.enter()?;
        let moved = follow.subscribe(store);
        let source = AllRows { store: store.clone(), read_model: PhantomData::<fn() -> R> };
        let changes = Changes { source, since, moved, catch_up: self.catch_up };
        let events = stream::unfold(Some(changes), |changes| async {
            let mut changes = changes?;
            match changes.next().await? {
                Ok(event) => Some((event, Some(changes))),
                Err(Unreadable) => Some((failed(), None)),
            }
        });
        Ok(sse(events, place))
    }
}

/// Events to a client, who has this place for as long.
fn sse<E>(
    events: E,
    place: OwnedSemaphorePermit,
) -> Sse<impl Stream<Item = Result<Event, Infallible>> + use<E>>
where
    E: Stream<Item = Event> + Send + 'static,
{
    let events = events.map(move |event| {
        let _ = &place;
        Ok(event)
    });
    Sse::new(events).keep_alive(KeepAlive::new().interval(Duration::from_secs(15)))
}

/// The last event of a stream that cannot go on. It bears no id, so the client comes back to where it was.
fn failed() -> Event {
    let detail = "what changed cannot be read; the log on this side has why";
    let event = Event::default().event("failed").retry(COME_BACK);
    event.data(json!({ "detail": detail }).to_string())
}

/// Trying again does not help.
struct Unreadable;

/// Why there is no answer.
enum Failure {
    Passes(ProjectionError),
    /// So far back, nothing is kept.
    Forgotten,
    Stays(String),
}

impl From<ProjectionError> for Failure {
    fn from(error: ProjectionError) -> Self {
        match error {
            ProjectionError::Forgotten { .. } => Self::Forgotten,
            error if error.is_retryable() => Self::Passes(error),
            error => Self::Stays(super::problem::chain(&error)),
        }
    }
}

fn json_of(row: &impl Serialize) -> Result<Value, Failure> {
    serde_json::to_value(row).map_err(|error| Failure::Stays(super::problem::chain(&error)))
}

/// What may be between two attempts, while the client waits.
fn pauses() -> Waits {
    Waits::half(Duration::from_millis(50), Duration::from_secs(5))
}

/// Waits, where the failure may pass.
async fn settle(failure: Failure, pauses: &mut Waits) -> Result<(), Unreadable> {
    match failure {
        Failure::Passes(error) => {
            tracing::debug!(%error, "reading for live updates again");
            tokio::time::sleep(pauses.next().unwrap_or_default()).await;
            Ok(())
        }
        Failure::Forgotten => {
            tracing::error!("a row as it is now is said to be forgotten");
            Err(Unreadable)
        }
        Failure::Stays(error) => {
            tracing::error!(error, "live updates end");
            Err(Unreadable)
        }
    }
}

/// Where one row is read.
#[async_trait]
trait ReadRow: Send {
    async fn row(&self) -> Result<Value, Failure>;
}

struct OneRow<R: ReadModel> {
    store: EventStore,
    key: R::Key,
}

#[async_trait]
impl<R: ReadModel + Serialize> ReadRow for OneRow<R> {
    async fn row(&self) -> Result<Value, Failure> {
        json_of(&self.store.query::<R>().get(&self.key).await?)
    }
}

struct Row<S> {
    source: S,
    moved: watch::Receiver<Option<Position>>,
    last: Option<Value>,
}

impl<S: ReadRow> Row<S> {
    async fn next(&mut self) -> Option<Result<Event, Unreadable>> {
        let mut pauses = pauses();
        loop {
            let position = self.moved.borrow_and_update().unwrap_or(Position::START);
            match self.source.row().await {
                Ok(row) if self.last.as_ref() != Some(&row) => {
                    let event = Event::default().event("row").id(position.to_string());
                    let event = event.data(row.to_string());
                    self.last = Some(row);
                    return Some(Ok(event));
                }
                Ok(_) => self.moved.changed().await.ok()?,
                // It may have been the last change for long, so it is not left to the next one.
                Err(failure) => {
                    if let Err(unreadable) = settle(failure, &mut pauses).await {
                        return Some(Err(unreadable));
                    }
                }
            }
        }
    }
}

/// Where changes are read.
#[async_trait]
trait ReadChanges: Send {
    async fn changes(&self, from: Position, to: Position) -> Result<Vec<Value>, Failure>;
}

struct AllRows<R> {
    store: EventStore,
    read_model: PhantomData<fn() -> R>,
}

#[async_trait]
impl<R: ReadModel + Serialize> ReadChanges for AllRows<R> {
    async fn changes(&self, from: Position, to: Position) -> Result<Vec<Value>, Failure> {
        let query = self.store.query::<R>();
        let differences = query.changes(AsOf::Position(from), AsOf::Position(to)).await?;
        let changes = differences.into_iter().map(|RowDifference { before, after, .. }| {
            Ok(json!({ "before": json_of(&before)?, "after": json_of(&after)? }))
        });
        changes.collect()
    }
}

struct Changes<S> {
    source: S,
    /// Up to where the client has been told; none if it wants what comes from now on.
    since: Option<Position>,
    moved: watch::Receiver<Option<Position>>,
    catch_up: i64,
}

impl<S: ReadChanges> Changes<S> {
    async fn next(&mut self) -> Option<Result<Event, Unreadable>> {
        let mut pauses = pauses();
        loop {
            let reached = *self.moved.borrow_and_update();
            match step(self.since, reached, self.catch_up) {
                Step::Wait => self.moved.changed().await.ok()?,
                Step::Begin(at) => self.since = Some(at),
                Step::Reload(at) => {
                    let detail = format!("more than {} positions behind", self.catch_up);
                    return Some(Ok(self.reload(at, &detail)));
                }
                Step::Read(from, to) => match self.source.changes(from, to).await {
                    Ok(changes) => {
                        // Only now: what was not read has not been told.
                        self.since = Some(to);
                        pauses = self::pauses();
                        if !changes.is_empty() {
                            let event = Event::default().event("changes").id(to.to_string());
                            return Some(Ok(event.data(Value::Array(changes).to_string())));
                        }
                    }
                    Err(Failure::Forgotten) => {
                        let at = reached.unwrap_or(to);
                        return Some(Ok(self.reload(at, "the history of that time is forgotten")));
                    }
                    Err(failure) => {
                        if let Err(unreadable) = settle(failure, &mut pauses).await {
                            return Some(Err(unreadable));
                        }
                    }
                },
            }
        }
    }

    /// Tells the client to read the rows anew; then it goes on from there.
    fn reload(&mut self, at: Position, why: &str) -> Event {
        self.since = Some(at);
        let event = Event::default().event("reload").id(at.to_string());
        event.data(json!({ "detail": format!("read the rows again: {why}") }).to_string())
    }
}

/// What is to be done for a client.
#[derive(Debug, PartialEq, Eq)]
enum Step {
    Wait,
    Begin(Position),
    Reload(Position),
    Read(Position, Position),
}

fn step(since: Option<Position>, reached: Option<Position>, catch_up: i64) -> Step {
    match (since, reached) {
        (None, Some(reached)) => Step::Begin(reached),
        (Some(since), Some(reached)) if since < reached => {
            let behind = reached.get() - since.get();
            if behind > catch_up {
                Step::Reload(reached)
            } else {
                Step::Read(since, Position::new(since.get() + behind.min(PAGE)))
            }
        }
        _ => Step::Wait,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use annals_eventstore::Error as StoreError;
    use futures::FutureExt;

    use super::*;

    fn at(position: i64) -> Position {
        Position::new(position)
    }

    fn passes() -> Failure {
        Failure::Passes(ProjectionError::Store(StoreError::KeyInFlight))
    }

    /// Answers as told, then with what was asked for.
    #[derive(Default)]
    struct Told {
        failures: Mutex<Vec<Failure>>,
        asked: Mutex<Vec<(i64, i64)>>,
    }

    #[async_trait]
    impl ReadChanges for &Told {
        async fn changes(&self, from: Position, to: Position) -> Result<Vec<Value>, Failure> {
            self.asked.lock().unwrap().push((from.get(), to.get()));
            match self.failures.lock().unwrap().pop() {
                Some(failure) => Err(failure),
                None => Ok(vec![json!(to.get())]),
            }
        }
    }

    #[async_trait]
    impl ReadRow for &Told {
        async fn row(&self) -> Result<Value, Failure> {
            match self.failures.lock().unwrap().pop() {
                Some(failure) => Err(failure),
                None => Ok(json!("row")),
            }
        }
    }

    fn text(event: Event) -> String {
        // An event shows its bytes only to those who serve it.
        let sse = Sse::new(stream::iter([Ok::<_, Infallible>(event)]));
        let body = axum::response::IntoResponse::into_response(sse).into_body();
        let bytes = axum::body::to_bytes(body, usize::MAX).now_or_never().unwrap().unwrap();
        String::from_utf8(bytes.to_vec()).unwrap()
    }

    async fn next(changes: &mut Changes<&Told>) -> String {
        // What is not read again never comes.
        match tokio::time::timeout(Duration::from_secs(30), changes.next()).await {
            Ok(Some(Ok(event))) => text(event),
            Ok(Some(Err(Unreadable))) => text(failed()),
            Ok(None) => "end".to_owned(),
            Err(_) => "nothing".to_owned(),
        }
    }

    #[test]
    fn a_client_is_told_page_by_page_or_to_reload() {
        for (since, reached, expected) in [
            (None, None, Step::Wait),
            (Some(3), None, Step::Wait),
            // Nothing has happened yet, so what happens first is told.
            (None, Some(0), Step::Begin(at(0))),
            (None, Some(7), Step::Begin(at(7))),
            (Some(7), Some(7), Step::Wait),
            (Some(8), Some(7), Step::Wait),
            (Some(0), Some(7), Step::Read(at(0), at(7))),
            (Some(5), Some(1005), Step::Read(at(5), at(1005))),
            (Some(5), Some(1006), Step::Read(at(5), at(1005))),
            (Some(0), Some(3000), Step::Read(at(0), at(1000))),
            (Some(0), Some(3001), Step::Reload(at(3001))),
        ] {
            let found = step(since.map(at), reached.map(at), 3000);
            assert_eq!(found, expected, "{since:?} {reached:?}");
        }
    }

    #[tokio::test]
    async fn what_could_not_be_read_is_read_again_though_nothing_moves() {
        let told = Told::default();
        *told.failures.lock().unwrap() = (0..3).map(|_| passes()).collect();
        let (moved, receiver) = watch::channel(Some(at(7)));
        let mut changes =
            Changes { source: &told, since: Some(at(2)), moved: receiver, catch_up: 100 };
        assert_eq!(next(&mut changes).await, "event: changes\nid: 7\ndata: [7]\n\n");
        assert_eq!(*told.asked.lock().unwrap(), [(2, 7); 4]);

        told.failures.lock().unwrap().push(passes());
        let mut row = Row { source: &told, moved: moved.subscribe(), last: None };
        let event = row.next().await.and_then(Result::ok).unwrap();
        assert_eq!(text(event), "event: row\nid: 7\ndata: \"row\"\n\n");
    }

    #[tokio::test]
    async fn what_is_forgotten_is_to_be_read_anew_and_what_stays_broken_ends() {
        let told = Told::default();
        let (_moved, receiver) = watch::channel(Some(at(7)));
        let mut changes =
            Changes { source: &told, since: Some(at(2)), moved: receiver, catch_up: 100 };
        told.failures.lock().unwrap().push(Failure::Forgotten);
        let reload = next(&mut changes).await;
        assert!(reload.starts_with("event: reload\nid: 7\n"), "{reload}");
        assert_eq!(changes.since, Some(at(7)));

        changes.since = Some(at(6));
        told.failures.lock().unwrap().push(Failure::Stays("broken".to_owned()));
        let end = next(&mut changes).await;
        assert!(end.starts_with("event: failed\nretry: 5000\n") && !end.contains("id:"), "{end}");
        assert_eq!(changes.since, Some(at(6)));
    }
}
