//! The runner of a slice: it takes events from the feed and hands them to the target, batch by batch.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use annals_eventstore::{
    EventQuery, Position, Recorded, StreamId, Version,
    postgres::{Checkpoint, WaitingEvents},
    trace,
};
use futures::TryStreamExt;
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

#[cfg(feature = "kafka")]
use super::aside::Aside;
use super::{
    Context, Log, OnFailure, Projection,
    control::{self, Asked, Wishes},
    failure::{may_be_of_an_event, text},
    latest::Part,
    pace::Pace,
    parking::{self, Parked, ParkedAt},
    projection::Terms,
    search::Search,
    slice::{slice_name, slice_of},
    source::Source,
};
use crate::{
    error::{Error, EventFailure},
    fail_points::may_fail,
    metrics,
    page::{PAGE_BYTES, size, size_of},
    read_model::StepError,
    target::{Batch, Beside, Late, Rest, Target, Waiting, begin},
};

/// How often to look for what people ask.
const LOOK: Duration = Duration::from_millis(300);
/// How long events gather while others wait.
const GATHER: Duration = Duration::from_millis(20);

/// Works on a slice until told to stop, or until it fails.
pub(super) async fn run(
    context: &Arc<Context>,
    projection: &dyn Projection,
    slice: u16,
    epoch: i64,
    stop: &CancellationToken,
) -> Result<(), Error> {
    let Context { database, options, .. } = &**context;
    // Others may have changed it while this one waited for its lease.
    projection.install(context).await?;
    let slices = projection.slices();
    let name = slice_name(projection.name(), slice, slices);
    let checkpoint = tokio::select! {
        taken = Checkpoint::take_over(database, &name, epoch) => taken?,
        () = stop.cancelled() => return Ok(()),
    };
    let mut runner = Runner {
        parked: parking::load(database, projection.name(), slice, slices).await?,
        source: context.source(projection, slice, epoch).await?,
        #[cfg(feature = "kafka")]
        aside: context.topics.as_ref().map(|topics| {
            let name = (projection.name(), projection.label());
            Aside::new(database, topics, name, (slice, slices))
        }),
        target: projection.target(Terms {
            store: context.store.clone(),
            database: database.clone(),
            patience: options.lease.time_to_live,
            attempts: options.attempts,
            breaker: options.breaker,
            stop: stop.clone(),
            stop_within: options.stop_within,
        }),
        pace: Pace::new(options.batch_size),
        looked: None,
        search: Search::none(),
        in_a_row: 0,
        slice,
        checkpoint,
        context,
        projection,
        stop,
    };
    metrics::begin(projection.label());
    runner.target.prepare().await?;
    runner.work().await
}

struct Runner<'a> {
    context: &'a Context,
    projection: &'a dyn Projection,
    slice: u16,
    stop: &'a CancellationToken,
    source: Box<dyn Source>,
    #[cfg(feature = "kafka")]
    aside: Option<Aside>,
    target: Box<dyn Target>,
    checkpoint: Checkpoint,
    parked: Parked,
    pace: Pace,
    /// When it last looked for what people ask.
    looked: Option<Instant>,
    search: Search,
    /// How many streams were parked since an event last succeeded.
    in_a_row: usize,
}

impl Runner<'_> {
    /// Applies batch after batch. The next one is read while one is applied.
    async fn work(&mut self) -> Result<(), Error> {
        let mut next = None;
        while !self.stop.is_cancelled() {
            if self.looked.is_none_or(|looked| looked.elapsed() > LOOK) {
                if self.is_paused().await? {
                    break;
                }
                // Its tables may be others by now, which have not come as far.
                self.checkpoint.check(&self.context.database.client().await?).await?;
                self.looked = Some(Instant::now());
            }
            let part = match next.take() {
                Some(part) => part,
                None => match self.read(self.checkpoint.position()).await? {
                    Some(part) => part,
                    None => {
                        tokio::select! {
                            () = self.source.is_past(self.checkpoint.position()) => {}
                            () = tokio::time::sleep(LOOK) => {}
                            () = self.stop.cancelled() => {}
                        }
                        continue;
                    }
                },
            };
            next = self.apply(part).await?;
        }
        Ok(())
    }

    fn limit(&self, after: Position) -> usize {
        self.search.limit(after, self.pace.size())
    }

    async fn read(&mut self, after: Position) -> Result<Option<Part>, Error> {
        let limit = self.limit(after);
        tokio::select! {
            part = self.source.next(after, limit) => part,
            // A broker that does not answer holds nobody up.
            () = self.stop.cancelled() => Ok(None),
        }
    }

    /// The events that are this slice's: those to be applied, and those of parked streams.
    fn mine(&self, mut events: Vec<Recorded>) -> (Vec<Recorded>, Vec<Recorded>) {
        let slices = self.projection.slices();
        if slices > 1 {
            events.retain(|event| slice_of(&event.stream, slices) == self.slice);
        }
        if self.parked.is_empty() {
            return (events, Vec::new());
        }
        let goes_on = |event: &Recorded| {
            self.parked.get(&event.stream).is_none_or(|at| event.position < at.position)
        };
        events.into_iter().partition(goes_on)
    }

    /// Applies a part of the log. Returns the next one, if it has been read meanwhile.
    async fn apply(&mut self, part: Part) -> Result<Option<Part>, Error> {
        may_fail!("batch-read");
        let Part { events, to, more, mark } = part;
        let read = events.len();
        let (events, waiting) = self.mine(events);
        // Those of a store are read again when they go on.
        let waiting = (self.context.log == Log::Foreign && !waiting.is_empty())
            .then(|| Waiting { projection: self.projection.name().to_owned(), events: waiting });
        let (count, place) = (events.len(), place(&events));
        let oldest = events.first().map(|event| event.recorded_at);
        let _traces = trace::continued(&events, |event| {
            tracing::info_span!(
                "project event",
                projection = self.projection.label(),
                stream = %event.stream,
                position = event.position.get(),
                event_id = %event.id,
                correlation_id = event.metadata.correlation_id,
            )
        });
        let batch = Batch::new(events, to, more).with(Beside { late: None, waiting, mark });
        let started = Instant::now();
        let limit = self.limit(to);
        let (source, stop) = (&mut self.source, self.stop);
        let reading = async {
            // Only where there is more to come is it worth reading ahead.
            if !more {
                return Ok(None);
            }
            tokio::select! {
                part = source.next(to, limit) => part,
                () = stop.cancelled() => Ok(None),
            }
        };
        let (target, checkpoint) = (&mut self.target, &mut self.checkpoint);
        let label = self.projection.label();
        let applying = async {
            let applied = target.apply(batch, checkpoint).await;
            // What only moves the checkpoint is no batch.
            if let Some(oldest) = oldest {
                metrics::applied(label, &applied, (count, oldest), started.elapsed());
            }
            applied
        };
        let (applied, next) = tokio::join!(applying, reading);
        let Err(error) = applied else {
            self.pace.took(read, started.elapsed());
            self.source.passed(self.checkpoint.position());
            if self.checkpoint.position() < to {
                self.rest(to, more && self.limit(to) > limit).await;
                return Ok(None);
            }
            if count > 0 {
                self.in_a_row = 0;
            }
            return next;
        };
        if count > 1 && may_be_of_an_event(&error) {
            self.search.narrow(read, to);
        } else {
            let failure = self.failure(error, place.clone())?;
            // What comes before the one that failed was applied.
            if place.is_some_and(|(.., first)| first <= self.checkpoint.position()) {
                self.in_a_row = 0;
            }
            self.failed(failure).await?;
        }
        // What is known of rows is nothing to build on.
        self.target.prepare().await?;
        Ok(None)
    }

    /// Where the target left a part of a batch undone, waits until it wants to go on with that, or with more.
    async fn rest(&mut self, to: Position, wider: bool) {
        let (until, more) = match self.target.rest() {
            None => return,
            // There is more, and it fits into the next batch.
            Some(Rest::OrMore(_)) if wider => return,
            Some(Rest::OrMore(until)) => (until, true),
            Some(Rest::Until(until)) => (until, false),
        };
        let wait = until.saturating_duration_since(Instant::now()).min(LOOK);
        tokio::select! {
            () = tokio::time::sleep(wait) => {}
            () = self.stop.cancelled() => {}
            () = async {
                // Not for each event alone.
                tokio::time::sleep(wait.min(GATHER)).await;
                self.source.is_past(to).await;
            }, if more => {}
        }
    }

    /// The event that failed, if it is one; else the error is the projection's.
    fn failure(&self, error: Error, place: Place) -> Result<Box<EventFailure>, Error> {
        match (error, place) {
            // That is no event's fault, and all would be parked.
            (Error::Event(failure), _) if is_mistake(&failure) => Err(Error::Event(failure)),
            (Error::Event(failure), _) => Ok(failure),
            (error, Some((stream, version, position))) if may_be_of_an_event(&error) => {
                let (projection, source) = (self.projection.label().to_owned(), Box::new(error));
                Ok(Box::new(EventFailure { projection, stream, version, position, source }))
            }
            (error, _) => Err(error),
        }
    }

    /// Deals with an event that failed: parks its stream, or gives up.
    async fn failed(&mut self, failure: Box<EventFailure>) -> Result<(), Error> {
        if self.context.options.on_failure == OnFailure::Stop {
            return Err(failure.into());
        }
        self.in_a_row += usize::from(self.projection.pauses());
        self.park(&failure).await
    }

    /// Parks the stream of an event, and pauses the projection if it is not the events that are wrong.
    async fn park(&mut self, failure: &EventFailure) -> Result<(), Error> {
        let EventFailure { projection, stream, version, position, .. } = failure;
        error!(
            projection, %stream, %version, %position, error = text(failure),
            "an event failed; its stream is parked"
        );
        metrics::parked(projection);
        let Context { database, options, .. } = self.context;
        let (name, to) = (self.projection.name(), self.checkpoint.position());
        let patience = options.lease.time_to_live;
        let beside = Beside::default();
        let transaction = begin(database, &self.checkpoint, &beside, to, patience).await?;
        let client = transaction.client()?;
        let record = self.source.record(failure.position);
        let at = parking::park(database, client, name, failure, record.as_ref()).await?;
        if self.projection.pauses() && self.in_a_row >= options.pause_after {
            let count = self.in_a_row;
            let reason = format!("{count} streams in a row failed, the last: {}", text(failure));
            parking::pause(database, client, name, &reason).await?;
            (self.in_a_row, self.looked) = (0, None);
        }
        transaction.commit().await?;
        self.parked.insert(failure.stream.clone(), at);
        #[cfg(feature = "kafka")]
        if let (Some(aside), Some(_)) = (&mut self.aside, record) {
            aside.is_due();
        }
        Ok(())
    }

    /// Puts aside what is to be. Returns whether all is done.
    fn has_put_aside(&mut self) -> bool {
        #[cfg(feature = "kafka")]
        if let Some(aside) = &mut self.aside {
            return aside.go_on();
        }
        true
    }

    /// Does what people ask. True if told to stop while paused.
    async fn is_paused(&mut self) -> Result<bool, Error> {
        let mut told = false;
        loop {
            let database = &self.context.database;
            let wishes = control::look(database, self.projection.name()).await?;
            let Wishes { paused, broken, asked } = wishes;
            if !broken {
                self.target.mended();
            }
            let Some(reason) = paused else {
                if told {
                    info!(projection = self.projection.label(), "goes on");
                }
                // A stream goes on once its dead letter is written.
                let asked = if self.has_put_aside() { asked } else { Vec::new() };
                for (stream, asked) in asked {
                    if slice_of(&stream, self.projection.slices()) == self.slice {
                        self.unpark(&stream, asked).await?;
                    }
                }
                return Ok(false);
            };
            if !told {
                warn!(projection = self.projection.label(), reason, "paused");
                told = true;
            }
            if tokio::time::timeout(LOOK, self.stop.cancelled()).await.is_ok() {
                return Ok(true);
            }
        }
    }

    /// Applies what was parked of a stream, up to where all others are.
    async fn unpark(&mut self, stream: &StreamId, asked: Asked) -> Result<(), Error> {
        // Another worker may have changed it since this one began.
        let slices = self.projection.slices();
        let (database, name) = (&self.context.database, self.projection.name());
        self.parked = parking::load(database, name, self.slice, slices).await?;
        let Some(ParkedAt { version, position }) = self.parked.get(stream).copied() else {
            return Ok(());
        };
        if position > self.checkpoint.position() {
            // The event is met on the way, and would be parked again. Once that is past, it goes on.
            return Ok(());
        }
        info!(projection = self.projection.label(), %stream, ?asked, "what was parked goes on");
        let mut after = Version::new(version.get() - i64::from(asked == Asked::Retry));
        let mut limit = self.pace.size();
        loop {
            let (events, more) = self.parked_events(stream, after, limit).await?;
            let (count, place) = (events.len(), place(&events));
            let rest = events.last().filter(|_| more).map(|last| ParkedAt {
                position: Position::new(last.position.get() + 1),
                version: Version::new(last.version.get() + 1),
            });
            match self.late(stream, events, rest).await {
                // It is asked for again.
                Ok(()) if self.target.rest().is_some() => return Ok(()),
                Ok(()) => {
                    let Some(rest) = rest else { break };
                    after = Version::new(rest.version.get() - 1);
                    self.parked.insert(stream.clone(), rest);
                    if self.stop.is_cancelled() {
                        return Ok(());
                    }
                }
                // Halves, so that all before the one that fails are applied.
                Err(error) if count > 1 && is_of_event(&error) => {
                    self.target.prepare().await?;
                    limit = count / 2;
                }
                Err(error) => {
                    let failure = self.failure(error, place)?;
                    self.target.prepare().await?;
                    return self.park(&failure).await;
                }
            }
        }
        self.parked.remove(stream);
        Ok(())
    }

    /// Events of a parked stream, as far as all other streams have come, and whether there may be more.
    async fn parked_events(
        &self,
        stream: &StreamId,
        after: Version,
        limit: usize,
    ) -> Result<(Vec<Recorded>, bool), Error> {
        if self.context.log == Log::Foreign {
            let kept = WaitingEvents::of(&self.context.database, self.projection.name());
            let up_to = self.checkpoint.position();
            let events = kept.page(stream, after, up_to, limit, PAGE_BYTES).await?;
            let more = events.len() == limit || size_of(&events) >= PAGE_BYTES;
            return Ok((events, more));
        }
        let query = EventQuery::stream(stream).after_version(after).include_archived();
        let query = query.up_to(self.checkpoint.position()).limit(limit as u64);
        let mut read = std::pin::pin!(self.context.store.read(query));
        let (mut events, mut bytes) = (Vec::new(), 0);
        while let Some(event) = read.try_next().await? {
            bytes += size(&event);
            events.push(event);
            if events.len() == limit || bytes >= PAGE_BYTES {
                return Ok((events, true));
            }
        }
        Ok((events, false))
    }

    async fn late(
        &mut self,
        stream: &StreamId,
        events: Vec<Recorded>,
        rest: Option<ParkedAt>,
    ) -> Result<(), Error> {
        let to = self.checkpoint.position();
        let late = Late {
            projection: self.projection.name().to_owned(),
            stream: stream.clone(),
            // What was answered as of this position stays as it was.
            at: Position::new(to.get() + 1),
            rest: rest.map(|rest| (rest.position, rest.version)),
        };
        let beside = Beside { late: Some(late), ..Beside::default() };
        let batch = Batch::new(events, to, false).with(beside);
        self.target.apply(batch, &mut self.checkpoint).await
    }
}

type Place = Option<(StreamId, Version, Position)>;

fn place(events: &[Recorded]) -> Place {
    events.first().map(|event| (event.stream.clone(), event.version, event.position))
}

fn is_of_event(error: &Error) -> bool {
    match error {
        Error::Event(failure) => !is_mistake(failure),
        error => may_be_of_an_event(error),
    }
}

/// True if the projection is declared wrongly.
fn is_mistake(failure: &EventFailure) -> bool {
    matches!(failure.source.downcast_ref(), Some(StepError::OtherSlice))
}
