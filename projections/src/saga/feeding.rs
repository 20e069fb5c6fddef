//! Feeding events to sagas: what they decide is recorded in the transaction that moves the checkpoint.

use std::{collections::HashMap, sync::Arc, time::Duration};

use annals_eventstore::{Position, Recorded, StreamId, postgres::Checkpoint};
use async_trait::async_trait;
use tokio::sync::Notify;

use super::{
    Process, SagaSource,
    ledger::{Entry, Ledger, News, Unsettled},
};
use crate::{
    error::{Error, EventFailure},
    fail_points::may_fail,
    guard::{Cause, guarded},
    target::{Batch, Beside, Target, begin},
};

/// How many events are heard in one transaction.
const AT_ONCE: usize = 64;

/// What a worker feeds the events of sagas to.
pub(crate) struct Feeding<S: Process> {
    ledger: Arc<Ledger<S>>,
    sources: HashMap<&'static str, SagaSource<S>>,
    /// How long a worker that is paused holds up its successor.
    patience: Duration,
    /// Told when there are calls to be made.
    wake: Arc<Notify>,
}

/// An event, and whom it concerns.
struct Heard<S: Process> {
    /// Which one of the batch.
    event: usize,
    news: (String, News<S>),
}

impl<S: Process> Feeding<S> {
    pub(crate) fn new(ledger: Arc<Ledger<S>>, patience: Duration, wake: Arc<Notify>) -> Self {
        let sources = S::sources().into_iter().map(|source| (source.category(), source)).collect();
        Self { ledger, sources, patience, wake }
    }

    /// The news in an event.
    fn news(&self, event: Recorded) -> Result<Vec<(String, News<S>)>, Cause> {
        let Some(source) = self.sources.get(event.stream.category()) else { return Ok(Vec::new()) };
        let occurrences =
            guarded(|| Ok::<_, Cause>(source.occurrences(event)?.into_iter().collect::<Vec<_>>()))?;
        let mut news = Vec::with_capacity(occurrences.len());
        for mut occurrence in occurrences {
            if let Some(key) = occurrence.key.take() {
                // That it can be one.
                StreamId::new(S::CATEGORY, &key)?;
                news.push((key, News::Event(occurrence)));
            }
        }
        Ok(news)
    }

    /// The news in events, up to the first one that cannot be read.
    fn hear(&self, events: &[Recorded]) -> (Vec<Heard<S>>, Option<Failed>) {
        let mut heard = Vec::new();
        for (event, recorded) in events.iter().enumerate() {
            match self.news(recorded.clone()) {
                Ok(news) => heard.extend(news.into_iter().map(|news| Heard { event, news })),
                Err(cause) => return (heard, Some((event, cause))),
            }
        }
        (heard, None)
    }

    /// Takes in what is heard, part by part, and moves the checkpoint up to `end`. Of an event that fails it tells; then
    /// the checkpoint stands before that.
    async fn take_in(
        &self,
        events: &[Recorded],
        heard: &[Heard<S>],
        (beside, end): (&Beside, Position),
        checkpoint: &mut Checkpoint,
    ) -> Result<Option<Failed>, Error> {
        let before = |event: usize| Position::new(events[event].position.get() - 1);
        let (mut rest, mut end, mut failed) = (heard, end, None);
        loop {
            let (now, later) = part(rest);
            let to = later.first().map_or(end, |next| before(next.event));
            if to > checkpoint.position() {
                match self.record(now, checkpoint, beside, to).await {
                    Ok(()) => checkpoint.moved(to),
                    Err(Unsettled::Failed { index, source }) => {
                        let event = now[index].event;
                        // Without it and what comes behind it.
                        rest = &now[..now.partition_point(|one| one.event < event)];
                        (end, failed) = (before(event), Some((event, source)));
                        continue;
                    }
                    Err(Unsettled::Error(error)) => return Err(error),
                }
            }
            if later.is_empty() {
                return Ok(failed);
            }
            rest = later;
        }
    }

    /// Takes late events, all or none.
    async fn take_late(
        &self,
        heard: &[Heard<S>],
        beside: &Beside,
        checkpoint: &mut Checkpoint,
        to: Position,
    ) -> Result<Option<Failed>, Error> {
        match self.record(heard, checkpoint, beside, to).await {
            Ok(()) => {
                checkpoint.moved(to);
                Ok(None)
            }
            Err(Unsettled::Failed { index, source }) => Ok(Some((heard[index].event, source))),
            Err(Unsettled::Error(error)) => Err(error),
        }
    }

    /// Records what sagas make of news, moves the checkpoint, and writes what goes beside it.
    async fn record(
        &self,
        heard: &[Heard<S>],
        checkpoint: &Checkpoint,
        beside: &Beside,
        to: Position,
    ) -> Result<(), Unsettled> {
        let (database, patience) = (&self.ledger.database, self.patience);
        if heard.is_empty() {
            let transaction = begin(database, checkpoint, beside, to, patience).await?;
            may_fail!("batch-written");
            transaction.commit().await?;
            may_fail!("batch-committed");
            return Ok(());
        }
        let news: Vec<_> = heard.iter().map(|heard| &heard.news).collect();
        let entry = Entry { checkpoint, beside, to };
        self.ledger.record(&news, patience, Some(entry)).await?;
        may_fail!("saga-heard");
        self.wake.notify_one();
        Ok(())
    }
}

/// Which event of a batch failed, and why.
type Failed = (usize, Cause);

/// What is taken in at once: so many, and all of the last event.
fn part<S: Process>(heard: &[Heard<S>]) -> (&[Heard<S>], &[Heard<S>]) {
    let mut count = heard.len().min(AT_ONCE);
    while count < heard.len() && heard[count].event == heard[count - 1].event {
        count += 1;
    }
    heard.split_at(count)
}

/// The error for an event that failed.
fn failure(saga: &str, event: &Recorded, source: Cause) -> Error {
    let (stream, version, position) = (event.stream.clone(), event.version, event.position);
    let projection = saga.to_owned();
    Box::new(EventFailure { projection, stream, version, position, source }).into()
}

#[async_trait]
impl<S: Process> Target for Feeding<S> {
    async fn prepare(&mut self) -> Result<(), Error> {
        // Nothing is kept in memory.
        Ok(())
    }

    async fn apply(&mut self, batch: Batch, checkpoint: &mut Checkpoint) -> Result<(), Error> {
        let Batch { events, to, beside, .. } = batch;
        let (heard, unread) = self.hear(&events);
        let failed = match (&beside.late, unread) {
            (Some(_), Some(unread)) => Some(unread),
            (Some(_), None) => self.take_late(&heard, &beside, checkpoint, to).await?,
            (None, None) => self.take_in(&events, &heard, (&beside, to), checkpoint).await?,
            (None, Some((event, cause))) => {
                let before = Position::new(events[event].position.get() - 1);
                let earlier = self.take_in(&events, &heard, (&beside, before), checkpoint).await?;
                earlier.or(Some((event, cause)))
            }
        };
        match failed {
            Some((event, cause)) => Err(failure(S::CATEGORY, &events[event], cause)),
            None => Ok(()),
        }
    }
}
