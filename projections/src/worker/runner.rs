//! The runner of a slice: it takes events from the feed and hands them to the target, batch by batch.

use std::time::{Duration, Instant};

use annals_eventstore::{EventQuery, Position, Recorded, StreamId, Version, postgres::Checkpoint};
use futures::TryStreamExt;
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use super::{
    Context, OnFailure, Projection,
    control::{self, Asked, Wishes},
    failure::{Interruptions, may_be_of_an_event, text},
    feed::Part,
    pace::Pace,
    parking::{self, Parked, ParkedAt},
    projection::{slice_name, slice_of},
};
use crate::{
    error::{Error, EventFailure},
    target::{Batch, Late, Target, begin},
};

/// How often to look for what people ask.
const LOOK: Duration = Duration::from_millis(300);

/// Works on a slice until told to stop, or until it fails.
pub(super) async fn run(
    context: &Context,
    projection: &dyn Projection,
    slice: u16,
    epoch: i64,
    stop: &CancellationToken,
) -> Result<(), Error> {
    let Context { store, database, options, .. } = context;
    // Others may have changed it while this one waited for its lease.
    projection.install(store).await?;
    let slices = projection.slices();
    let name = slice_name(projection.name(), slice, slices);
    let checkpoint = Checkpoint::take_over(database, &name, epoch).await?;
    let mut runner = Runner {
        parked: parking::load(database, projection.name(), slice, slices).await?,
        target: projection.target(database, options.lease.time_to_live),
        pace: Pace::new(options.batch_size),
        looked: None,
        alone_up_to: Position::START,
        attempts: 0,
        in_a_row: 0,
        interruptions: Interruptions::default(),
        slice,
        checkpoint,
        context,
        projection,
        stop,
    };
    runner.target.prepare().await?;
    runner.work().await
}

struct Runner<'a> {
    context: &'a Context,
    projection: &'a dyn Projection,
    slice: u16,
    stop: &'a CancellationToken,
    target: Box<dyn Target>,
    checkpoint: Checkpoint,
    parked: Parked,
    pace: Pace,
    /// When it last looked for what people ask.
    looked: Option<Instant>,
    /// Up to here, events are taken one by one, to find the one that fails.
    alone_up_to: Position,
    /// How often the next event was tried and failed.
    attempts: u32,
    /// How many streams were parked since an event last succeeded.
    in_a_row: usize,
    interruptions: Interruptions,
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
                            () = self.context.feed.is_past(self.checkpoint.position()) => {}
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
        if after < self.alone_up_to { 1 } else { self.pace.size() }
    }

    async fn read(&self, after: Position) -> Result<Option<Part>, Error> {
        let categories = self.projection.categories();
        self.context.feed.next(categories, after, self.limit(after)).await
    }

    /// The events that are this slice's and of no parked stream.
    fn mine(&self, events: Vec<Recorded>) -> Vec<Recorded> {
        let slices = self.projection.slices();
        if slices == 1 && self.parked.is_empty() {
            return events;
        }
        let mine = |event: &Recorded| {
            slice_of(&event.stream, slices) == self.slice
                && self.parked.get(&event.stream).is_none_or(|at| event.position < at.position)
        };
        events.into_iter().filter(mine).collect()
    }

    /// Applies a part of the log. Returns the next one, if it has been read meanwhile.
    async fn apply(&mut self, part: Part) -> Result<Option<Part>, Error> {
        let Part { events, to, more } = part;
        let read = events.len();
        let events = self.mine(events);
        let (count, place) = (events.len(), place(&events));
        let batch = Batch::new(events, to, more);
        let started = Instant::now();
        let feed = &self.context.feed;
        let (categories, limit) = (self.projection.categories(), self.limit(to));
        let reading = async {
            // Only where there is more to come is it worth reading ahead.
            if more { feed.next(categories, to, limit).await } else { Ok(None) }
        };
        let applying = self.target.apply(batch, &mut self.checkpoint);
        let (applied, next) = tokio::join!(applying, reading);
        let Err(error) = applied else {
            self.pace.took(read, started.elapsed());
            if count > 0 {
                (self.in_a_row, self.attempts) = (0, 0);
                self.interruptions.succeeded();
            }
            return next;
        };
        if count > 1 && may_be_of_an_event(&error) {
            self.alone_up_to = to;
        } else {
            let failure = self.failure(error, place)?;
            self.failed(failure).await?;
        }
        // What is known of rows is nothing to build on.
        self.target.prepare().await?;
        Ok(None)
    }

    /// The event that failed, if it is one; else the error is the projection's.
    fn failure(&self, error: Error, place: Place) -> Result<Box<EventFailure>, Error> {
        match (error, place) {
            (Error::Event(failure), _) => Ok(failure),
            (error, Some((stream, version, position))) if may_be_of_an_event(&error) => {
                let (projection, source) = (self.projection.label().to_owned(), Box::new(error));
                Ok(Box::new(EventFailure { projection, stream, version, position, source }))
            }
            (error, _) => Err(error),
        }
    }

    /// Deals with an event that failed: tries it again, parks its stream, or gives up.
    async fn failed(&mut self, failure: Box<EventFailure>) -> Result<(), Error> {
        let options = &self.context.options;
        self.attempts += 1;
        if self.projection.failures_may_pass() && self.attempts < options.attempts {
            let delay = self.interruptions.delay(Instant::now());
            warn!(error = text(&*failure), ?delay, "an event failed and is tried again");
            let _ = tokio::time::timeout(delay, self.stop.cancelled()).await;
            return Ok(());
        }
        if options.on_failure == OnFailure::Stop {
            return Err(failure.into());
        }
        (self.attempts, self.in_a_row) = (0, self.in_a_row + 1);
        self.park(&failure).await
    }

    /// Parks the stream of an event, and pauses the projection if it is not the events that are wrong.
    async fn park(&mut self, failure: &EventFailure) -> Result<(), Error> {
        error!(error = text(failure), "an event failed; its stream is parked");
        let Context { database, options, .. } = self.context;
        let (name, to) = (self.projection.name(), self.checkpoint.position());
        let patience = options.lease.time_to_live;
        let transaction = begin(database, &self.checkpoint, None, to, patience).await?;
        let client = transaction.client()?;
        let at = parking::park(database, client, name, failure).await?;
        if self.in_a_row >= options.pause_after {
            let count = self.in_a_row;
            let reason = format!("{count} streams in a row failed, the last: {}", text(failure));
            parking::pause(database, client, name, &reason).await?;
            (self.in_a_row, self.looked) = (0, None);
        }
        transaction.commit().await?;
        self.parked.insert(failure.stream.clone(), at);
        Ok(())
    }

    /// Does what people ask. True if told to stop while paused.
    async fn is_paused(&mut self) -> Result<bool, Error> {
        let mut told = false;
        loop {
            let database = &self.context.database;
            let Wishes { paused, asked } = control::look(database, self.projection.name()).await?;
            let slices = self.projection.slices();
            for (stream, asked) in asked {
                if slice_of(&stream, slices) == self.slice {
                    self.unpark(&stream, asked).await?;
                }
            }
            let Some(reason) = paused else {
                if told {
                    info!(projection = self.projection.label(), "goes on");
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
        let Some(ParkedAt { version, .. }) = self.parked.get(stream).copied() else {
            return Ok(());
        };
        info!(projection = self.projection.label(), %stream, ?asked, "what was parked goes on");
        let mut after = Version::new(version.get() - i64::from(asked == Asked::Retry));
        let mut limit = self.context.options.batch_size;
        loop {
            let events = self.parked_events(stream, after, limit).await?;
            let place = place(&events);
            let rest = events.last().filter(|_| events.len() == limit).map(|last| ParkedAt {
                position: Position::new(last.position.get() + 1),
                version: Version::new(last.version.get() + 1),
            });
            match self.late(stream, events, rest).await {
                Ok(()) => match rest {
                    Some(rest) => after = Version::new(rest.version.get() - 1),
                    None => break,
                },
                // One by one, so that all before the one that fails are applied.
                Err(error) if limit > 1 && is_of_event(&error) => {
                    self.target.prepare().await?;
                    limit = 1;
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

    /// Events of a parked stream, as far as all other streams have come.
    async fn parked_events(
        &self,
        stream: &StreamId,
        after: Version,
        limit: usize,
    ) -> Result<Vec<Recorded>, Error> {
        let query = EventQuery::stream(stream).after_version(after).include_archived();
        let query = query.up_to(self.checkpoint.position()).limit(limit as u64);
        Ok(self.context.store.read(query).try_collect().await?)
    }

    async fn late(
        &mut self,
        stream: &StreamId,
        events: Vec<Recorded>,
        rest: Option<ParkedAt>,
    ) -> Result<(), Error> {
        let to = self.checkpoint.position();
        let mut batch = Batch::new(events, to, false);
        batch.late = Some(Late {
            projection: self.projection.name().to_owned(),
            stream: stream.clone(),
            // What was answered as of this position stays as it was.
            at: Position::new(to.get() + 1),
            rest: rest.map(|rest| (rest.position, rest.version)),
        });
        self.target.apply(batch, &mut self.checkpoint).await
    }
}

type Place = Option<(StreamId, Version, Position)>;

fn place(events: &[Recorded]) -> Place {
    events.first().map(|event| (event.stream.clone(), event.version, event.position))
}

fn is_of_event(error: &Error) -> bool {
    matches!(error, Error::Event(_)) || may_be_of_an_event(error)
}
