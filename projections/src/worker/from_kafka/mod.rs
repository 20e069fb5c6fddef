//! Kafka as the source of a slice's events, and the store for what Kafka does not hold.
//!
//! A slice that has no offsets, or whose offsets are of no use any more, is replayed: the ends of the topics are noted
//! first, then the store is read up to its safe position, and then the topics from the noted ends on. What was
//! published before the ends is recorded at or below the safe position, and what the topics repeat of that
//! is dropped by its position. So there is no gap and no repetition.

mod held;

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use annals_eventstore::Position;
use async_trait::async_trait;
use futures::FutureExt;
use tracing::{info, warn};

use self::held::Held;
use super::{
    Context, Log, Projection, failure::text, latest::Part, slice::slice_name, source::Source,
};
use crate::{
    control::{FedBy, set_fed_by},
    error::Error,
    fail_points::may_fail,
    kafka::{
        self, DeadLetters, Failure, FeedError, Offsets, Origin, Partitions, Resume, Start,
        Subscription,
    },
    offsets::{self, Mark, RecordAt},
    page::{Page, Pages},
};

/// How long Kafka is left alone where it has nothing to read from yet.
const LEFT_ALONE: Duration = Duration::from_secs(1);
const NO_TOPIC: &str = "there is no topic of its categories yet";
/// How many events are taken over at once at most.
const PAGE: usize = 2000;

pub(super) struct FromKafka {
    context: Arc<Context>,
    topics: kafka::Source,
    /// From the store, what Kafka does not hold.
    pages: Pages,
    categories: Vec<String>,
    slice: u16,
    slices: u16,
    /// The name of the slice's checkpoint, and the epoch in which it is held.
    checkpoint: String,
    epoch: i64,
    label: String,
    state: State,
    held: Held,
    /// What a subscription failed with while it was waited for.
    failure: Option<FeedError>,
    /// What was last told of what feeds it.
    told: Option<FedBy>,
}

enum State {
    /// It is to be found out where it goes on.
    Anywhere,
    /// The store is read up to a position, and the topics then from their ends as they were noted before.
    Replaying {
        until: Position,
        ends: Offsets,
    },
    /// The store was read up to a position. Kafka had nothing to read from, and is asked again in a while.
    LeftAlone(Instant),
    Following(Subscription),
}

impl FromKafka {
    pub(super) fn new(
        context: &Arc<Context>,
        topics: &kafka::Source,
        projection: &dyn Projection,
        slice: u16,
        epoch: i64,
    ) -> Self {
        let (categories, slices) = (projection.categories(), projection.slices());
        Self {
            context: context.clone(),
            topics: topics.clone(),
            pages: Pages::of(&context.store, categories),
            categories: categories.to_vec(),
            slice,
            slices,
            checkpoint: slice_name(projection.name(), slice, slices),
            epoch,
            label: projection.label().to_owned(),
            state: State::Anywhere,
            held: Held::default(),
            failure: None,
            told: None,
        }
    }

    /// The partitions of the slice; `None` while there is no topic. Where slices are not made of whole partitions,
    /// all are read, and the events of others are left out.
    async fn partitions(&self) -> Result<Option<Partitions>, Error> {
        let count = self.topics.partition_count(&self.categories).await?;
        let (slice, slices) = (self.slice, self.slices);
        Ok(count.map(|count| match count % i32::from(slices) {
            0 if slices > 1 => Partitions::Slice { slice, slices },
            _ => Partitions::All,
        }))
    }

    /// Begins where the checkpoint stands.
    async fn begin(&mut self, at: Position) -> Result<(), Error> {
        let database = &self.context.database;
        let known = offsets::load(database, &self.checkpoint, at).await?;
        let known = known.iter().map(|((topic, partition), next)| (&**topic, *partition, *next));
        let known: Offsets = known.collect();
        match (self.context.log, known.is_empty()) {
            (Log::Ours, true) => self.replay(at, None).await,
            // It was begun behind the beginning, and nothing of what is before that matters.
            (Log::Foreign, true) if at > Position::START => self.follow(Start::Earliest, at).await,
            _ => self.follow(Start::At(Resume::new(at, known)), at).await,
        }
    }

    async fn follow(&mut self, start: Start, at: Position) -> Result<(), Error> {
        let Some(partitions) = self.partitions().await? else {
            return self.leave_alone(at, NO_TOPIC.to_owned()).await;
        };
        let subscribe = self.topics.subscribe(self.categories.clone()).partitions(partitions);
        let subscription = subscribe.label(&*self.checkpoint).page_events(PAGE).start(start);
        self.held = Held::after(at);
        self.state = State::Following(subscription);
        Ok(())
    }

    /// Replays the store, for a reason if it is not what is done at first.
    async fn replay(&mut self, at: Position, reason: Option<String>) -> Result<(), Error> {
        let Some(partitions) = self.partitions().await? else {
            return self.leave_alone(at, NO_TOPIC.to_owned()).await;
        };
        // First these, then the safe position: it covers all that is published before the ends.
        let ends = self.topics.ends(&self.categories, &partitions).await?;
        let until = self.context.store.safe_position().await?;
        let goes_on = matches!(self.told, Some(FedBy::Replay { .. })) && reason.is_none();
        if until > at && !goes_on {
            self.tell(FedBy::Replay { reason }).await?;
        }
        self.state = State::Replaying { until, ends };
        Ok(())
    }

    /// Reads on from the store, and asks Kafka again in a while.
    async fn leave_alone(&mut self, at: Position, reason: String) -> Result<(), Error> {
        let until = self.context.store.safe_position().await?;
        self.tell(FedBy::Replay { reason: Some(reason) }).await?;
        self.state = State::LeftAlone(Instant::now() + LEFT_ALONE);
        self.held = Held::after(at);
        while self.context.log == Log::Ours && self.held.to() < until && self.held.has_room() {
            let Page { events, to } = self.pages.next(self.held.to(), until, PAGE).await?;
            self.held.add(events, to);
        }
        Ok(())
    }

    /// Does what can be done about a failure of the subscription.
    async fn failed(&mut self, failure: FeedError, at: Position) -> Result<(), Error> {
        let reason = text(&failure);
        match (failure, self.context.log) {
            (FeedError::Lost(_) | FeedError::Undecodable(_), Log::Ours) => {
                self.replay(at, Some(reason)).await
            }
            (FeedError::NotPublished { .. }, _) => self.leave_alone(at, reason).await,
            (FeedError::Lost(lost), Log::Foreign) => {
                Err(Error::Gone { projection: self.label.clone(), position: at, lost })
            }
            // It is no event, so no stream has to wait for it. It is put aside before anything behind it is applied.
            (FeedError::Undecodable(undecodable), Log::Foreign) => {
                let letters = DeadLetters::new(&self.topics, &*self.label)?;
                letters.write(&undecodable.record, &Failure::new(reason)).await?;
                Ok(())
            }
            (failure, _) => Err(failure.into()),
        }
    }

    /// Says what feeds the slice: once in the log, and where [`status`](crate::control::status) looks.
    async fn tell(&mut self, fed_by: FedBy) -> Result<(), Error> {
        if self.told.as_ref() == Some(&fed_by) {
            return Ok(());
        }
        let (projection, slice) = (&*self.label, self.slice);
        match &fed_by {
            FedBy::Replay { reason: Some(reason) } if self.context.log == Log::Foreign => {
                warn!(projection, slice, reason, "it waits for Kafka");
            }
            FedBy::Replay { reason: Some(reason) } => {
                warn!(projection, slice, reason, "the store feeds it for now, instead of Kafka");
            }
            FedBy::Replay { reason: None } => {
                info!(projection, slice, "the store is replayed, then Kafka feeds it");
            }
            _ => info!(projection, slice, "Kafka feeds it"),
        }
        set_fed_by(&self.context.database, &self.checkpoint, self.epoch, &fed_by).await?;
        self.told = Some(fed_by);
        Ok(())
    }

    /// A page that is there already, or a failure.
    fn take(&mut self) {
        if let State::Following(subscription) = &mut self.state
            && self.failure.is_none()
        {
            match subscription.next().now_or_never() {
                Some(Ok(page)) => self.held.add_page(page),
                Some(Err(failure)) => self.failure = Some(failure),
                None => {}
            }
        }
    }
}

#[async_trait]
impl Source for FromKafka {
    async fn next(&mut self, after: Position, limit: usize) -> Result<Option<Part>, Error> {
        if self.held.lacks(after) {
            // What was given ahead of the checkpoint is asked for again, after a failure, and was forgotten meanwhile.
            (self.state, self.held, self.failure) = (State::Anywhere, Held::after(after), None);
        }
        loop {
            if let Some(part) = self.held.part(after, limit) {
                if part.mark.is_some() {
                    may_fail!("kafka-page-taken");
                    self.tell(FedBy::Kafka).await?;
                }
                return Ok(Some(part));
            }
            if let Some(failure) = self.failure.take() {
                self.failed(failure, after).await?;
                continue;
            }
            match &mut self.state {
                State::Anywhere => self.begin(after).await?,
                State::Replaying { until, ends } if after >= *until => {
                    let ends = std::mem::take(ends);
                    self.follow(Start::At(Resume::new(after, ends)), after).await?;
                }
                State::Replaying { until, ends } => {
                    let until = *until;
                    let Page { events, to } = self.pages.next(after, until, limit).await?;
                    let mark = (to == until)
                        .then(|| Mark { position: until, offsets: held::to_keep(ends) });
                    return Ok(Some(Part { events, to, more: true, mark }));
                }
                State::LeftAlone(until) if Instant::now() >= *until => {
                    self.state = State::Anywhere;
                }
                State::LeftAlone(_) => return Ok(None),
                State::Following(_) => {
                    self.take();
                    if self.failure.is_none() && self.held.to() <= after {
                        return Ok(None);
                    }
                }
            }
        }
    }

    fn passed(&mut self, checkpoint: Position) {
        if let Some(offsets) = self.held.passed(checkpoint) {
            self.context.applied(&self.label, &offsets);
        }
    }

    fn record(&self, position: Position) -> Option<RecordAt> {
        let Origin { topic, partition, offset } = self.held.origin(position)?;
        Some(RecordAt { topic: topic.to_string(), partition: *partition, offset: *offset })
    }

    async fn is_past(&mut self, after: Position) {
        while self.held.to() <= after && self.failure.is_none() {
            match &mut self.state {
                State::Following(subscription) => match subscription.next().await {
                    Ok(page) => self.held.add_page(page),
                    Err(failure) => self.failure = Some(failure),
                },
                State::LeftAlone(until) => {
                    tokio::time::sleep_until((*until).into()).await;
                    return;
                }
                State::Anywhere | State::Replaying { .. } => return,
            }
        }
    }
}
