//! A reactor at work on a slice: what it reacts to at the same time, and what becomes of what fails.
//!
//! The events of a stream are reacted to in their order, different streams at the same time. A stream whose event is
//! to be tried again waits, and the others go on. The checkpoint stands before the first event that is not
//! done; what is done behind it is remembered, as long as this worker lives.

use std::{
    collections::HashMap,
    panic::AssertUnwindSafe,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Instant,
};

use annals_eventstore::{Position, Recorded, StreamId, Version, postgres::Checkpoint, trace};
use async_trait::async_trait;
use futures::{FutureExt, StreamExt};
use tracing::{Instrument, debug, warn};

use super::{
    circuit::{Circuit, backoff},
    failure::text,
    projection::Terms,
};
use crate::{
    error::{Error, EventFailure},
    fail_points::may_fail,
    guard::{Cause, guarded, panicked},
    reactor::{Reaction, Reactor, ReactorSource, Trigger},
    target::{Batch, Beside, Rest, Target, begin},
};

pub(super) struct Reacting<R: Reactor> {
    reactor: Arc<R>,
    sources: HashMap<&'static str, ReactorSource<R>>,
    terms: Terms,
    circuit: Mutex<Circuit>,
    /// Whether it is known how an earlier worker has left the circuit.
    known: bool,
    /// How far streams have come of which something is done behind the checkpoint, or waits.
    streams: HashMap<StreamId, Progress>,
    rest: Option<Rest>,
}

/// How far a stream has come.
#[derive(Debug, Default)]
struct Progress {
    /// All its events up to here are done.
    done: Position,
    /// So many parts of the next one, too.
    parts: usize,
    /// How often the next part was tried, and how often that counted as its failure.
    attempts: u32,
    failures: u32,
    /// When the next one is to be tried.
    due: Option<Instant>,
    /// When an attempt on it last failed: of several, the one whose turn is longest ago is the next trial.
    failed_at: Option<Instant>,
    failed: Option<Failed>,
}

#[derive(Debug)]
struct Failed {
    position: Position,
    version: Version,
    cause: Cause,
}

impl Progress {
    /// The next event, or the next part of it, begins anew.
    fn next(&mut self) {
        (self.attempts, self.failures, self.due, self.failed_at) = (0, 0, None, None);
    }
}

#[derive(Debug, thiserror::Error)]
#[error("the reactor parked it: {0}")]
struct ParkedByReactor(String);

impl<R: Reactor> Reacting<R> {
    pub(super) fn new(reactor: Arc<R>, terms: Terms, name: &str) -> Self {
        Self {
            sources: R::sources().into_iter().map(|source| (source.category(), source)).collect(),
            circuit: Mutex::new(Circuit::new(&terms, name, reactor.name())),
            known: false,
            streams: HashMap::new(),
            rest: None,
            reactor,
            terms,
        }
    }

    fn circuit(&self) -> MutexGuard<'_, Circuit> {
        self.circuit.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The events that can be reacted to now: of each stream, those that are not done, in their order.
    fn work(&mut self, events: &[Recorded]) -> Vec<(Progress, Vec<Recorded>)> {
        let now = Instant::now();
        let mut of_streams: HashMap<&StreamId, Vec<Recorded>> = HashMap::new();
        for event in events {
            let progress = self.streams.get(&event.stream);
            let waits = progress.is_some_and(|progress| {
                event.position <= progress.done
                    || progress.failed.is_some()
                    || progress.due.is_some_and(|due| due > now)
            });
            if !waits {
                of_streams.entry(&event.stream).or_default().push(event.clone());
            }
        }
        let work = of_streams
            .into_iter()
            .map(|(stream, events)| (self.streams.remove(stream).unwrap_or_default(), events));
        let mut work: Vec<_> = work.collect();
        work.sort_by_key(|(progress, events)| (progress.failed_at, events[0].position));
        work
    }

    /// Reacts to all that it can, until told to stop.
    async fn react(&mut self, events: &[Recorded]) {
        let work = self.work(events);
        let concurrency = self.reactor.concurrency().max(1);
        let this = &*self;
        let running = work.into_iter().map(|(progress, events)| this.react_to(progress, events));
        let mut running = futures::stream::iter(running).buffer_unordered(concurrency);
        let stopped = async {
            self.terms.stop.cancelled().await;
            tokio::time::sleep(self.terms.stop_within).await;
        };
        let mut stopped = std::pin::pin!(stopped);
        let mut ended = Vec::new();
        loop {
            tokio::select! {
                biased;
                progress = running.next() => match progress {
                    Some(progress) => ended.push(progress),
                    None => break,
                },
                () = &mut stopped => {
                    warn!(reactor = self.reactor.name(), "reactions are cut off, to be done again");
                    break;
                }
            }
        }
        drop(running);
        self.streams.extend(ended);
    }

    /// Reacts to the events of one stream, as far as that goes.
    async fn react_to(
        &self,
        mut progress: Progress,
        events: Vec<Recorded>,
    ) -> (StreamId, Progress) {
        let stream = events[0].stream.clone();
        for event in events {
            let (position, version) = (event.position, event.version);
            let span = tracing::info_span!(
                "react",
                reactor = self.reactor.name(),
                %stream,
                %position,
                event_id = %event.id,
                correlation_id = event.metadata.correlation_id,
            );
            trace::continue_from(&span, &event.metadata);
            let reacted = match self.triggers(event) {
                Ok(triggers) => {
                    self.react_to_parts(&mut progress, &triggers).instrument(span).await
                }
                Err(cause) => Err(cause),
            };
            match reacted {
                Ok(true) => (progress.done, progress.parts) = (position, 0),
                Ok(false) => break,
                Err(cause) => {
                    progress.failed = Some(Failed { position, version, cause });
                    break;
                }
            }
        }
        (stream, progress)
    }

    fn triggers(&self, event: Recorded) -> Result<Vec<Trigger<R>>, Cause> {
        let Some(source) = self.sources.get(event.stream.category()) else { return Ok(Vec::new()) };
        guarded(|| Ok::<_, Cause>(source.triggers(event)?.into_iter().collect()))
    }

    /// Reacts to the parts of an event. Says whether all are done; an error is for good.
    async fn react_to_parts(
        &self,
        progress: &mut Progress,
        triggers: &[Trigger<R>],
    ) -> Result<bool, Cause> {
        while let Some(trigger) = triggers.get(progress.parts) {
            if self.terms.stop.is_cancelled() {
                return Ok(false);
            }
            let Some(permit) = self.circuit().ask() else { return Ok(false) };
            progress.attempts += 1;
            let reacting = reacting(trigger, &self.reactor, progress.attempts);
            let outcome = AssertUnwindSafe(reacting).catch_unwind().await;
            let outcome = outcome.unwrap_or_else(|payload| Err(panicked(&*payload)));
            let trial = permit.is_trial();
            let cause = match outcome {
                Ok(answer) => {
                    // Whatever it said, it came to say something.
                    self.circuit().succeeded(permit);
                    match answer {
                        Reaction::Done => {
                            progress.parts += 1;
                            progress.next();
                            continue;
                        }
                        Reaction::RetryAfter(wait) => {
                            progress.due = Instant::now().checked_add(wait).or(progress.due);
                            return Ok(false);
                        }
                        Reaction::Park(reason) => return Err(Box::new(ParkedByReactor(reason))),
                    }
                }
                Err(cause) => cause,
            };
            let (reactor, reason) = (self.reactor.name(), text(&*cause));
            let mut circuit = self.circuit();
            circuit.failed(permit, reason.clone());
            // What a trial fails of is what it was to find out about.
            progress.failures += u32::from(!trial);
            if progress.failures >= self.terms.attempts && circuit.is_closed() {
                return Err(cause);
            }
            let now = Instant::now();
            progress.failed_at = Some(now);
            progress.due = circuit.is_closed().then(|| now + backoff(progress.failures));
            let position = trigger.position();
            warn!(reactor, %position, error = reason, "a reaction failed and is tried again");
            return Ok(false);
        }
        Ok(true)
    }

    fn is_done(&self, event: &Recorded) -> bool {
        self.streams.get(&event.stream).is_some_and(|progress| event.position <= progress.done)
    }

    /// Moves the checkpoint, in a transaction of its own.
    async fn advance(
        &mut self,
        checkpoint: &mut Checkpoint,
        beside: &Beside,
        to: Position,
    ) -> Result<(), Error> {
        let Terms { database, patience, .. } = &self.terms;
        let transaction = begin(database, checkpoint, beside, to, *patience).await?;
        may_fail!("batch-written");
        transaction.commit().await?;
        may_fail!("batch-committed");
        checkpoint.moved(to);
        Ok(())
    }

    /// The first failure among events, which is forgotten: its stream is parked.
    fn failure(&mut self, events: &[Recorded]) -> Option<Error> {
        let stream = events.iter().map(|event| &event.stream).find(|stream| {
            self.streams.get(stream).is_some_and(|progress| progress.failed.is_some())
        })?;
        let progress = self.streams.get_mut(stream)?;
        let Failed { position, version, cause } = progress.failed.take()?;
        progress.parts = 0;
        progress.next();
        let projection = self.reactor.name().to_owned();
        let stream = stream.clone();
        let failure = EventFailure { projection, stream, version, position, source: cause };
        Some(Box::new(failure).into())
    }

    /// Until when what is left of a batch waits, if it does.
    fn resting(&self, undone: &[Recorded]) -> Option<Rest> {
        let now = Instant::now();
        if let Some(until) = self.circuit().open_until().filter(|until| *until > now) {
            return Some(Rest::Until(until));
        }
        let due = undone
            .iter()
            .map(|event| self.streams.get(&event.stream).and_then(|progress| progress.due));
        // If one does not wait, none of it does.
        due.min().flatten().map(Rest::OrMore)
    }
}

/// Has a reactor react.
async fn reacting<R: Reactor>(
    trigger: &Trigger<R>,
    reactor: &R,
    attempt: u32,
) -> Result<Reaction, Cause> {
    may_fail!("reaction-begun");
    let reaction = trigger.react(reactor, attempt).await?;
    may_fail!("reaction-done");
    Ok(reaction)
}

#[async_trait]
impl<R: Reactor> Target for Reacting<R> {
    async fn prepare(&mut self) -> Result<(), Error> {
        // What is done stays done: nothing here rests on the database.
        if !self.known {
            self.circuit.get_mut().unwrap_or_else(PoisonError::into_inner).take_over().await?;
            self.known = true;
        }
        Ok(())
    }

    async fn apply(&mut self, batch: Batch, checkpoint: &mut Checkpoint) -> Result<(), Error> {
        let Batch { events, to, beside, .. } = batch;
        self.rest = None;
        self.react(&events).await;
        self.circuit.get_mut().unwrap_or_else(PoisonError::into_inner).tell().await?;
        let undone: Vec<_> = events.iter().filter(|event| !self.is_done(event)).cloned().collect();
        let reached = undone.first().map_or(to, |first| Position::new(first.position.get() - 1));
        match &beside.late {
            None if reached > checkpoint.position() => {
                self.advance(checkpoint, &beside, reached).await?;
            }
            Some(late) if undone.is_empty() => {
                self.advance(checkpoint, &beside, to).await?;
                if late.rest.is_none() {
                    self.streams.remove(&late.stream);
                }
            }
            _ => {}
        }
        let up_to = checkpoint.position();
        self.streams.retain(|_, progress| {
            progress.done > up_to
                || progress.due.is_some()
                || progress.failed.is_some()
                || progress.failed_at.is_some()
                || progress.parts > 0
        });
        if let Some(failure) = self.failure(&undone) {
            return Err(failure);
        }
        if !undone.is_empty() {
            debug!(reactor = self.reactor.name(), events = undone.len(), "not all is done yet");
            self.rest = self.resting(&undone);
        }
        Ok(())
    }

    fn rest(&self) -> Option<Rest> {
        self.rest
    }

    fn mended(&mut self) {
        self.circuit.get_mut().unwrap_or_else(PoisonError::into_inner).mended();
    }
}
