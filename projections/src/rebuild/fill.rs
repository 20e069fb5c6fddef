//! Folding the log into empty tables, in parallel and in bounded memory.
//!
//! Each row belongs to one shard, by a hash of its key, so each row meets its events in order. Now and then
//! all shards hand their rows out, which are written together with the checkpoint. While they are written for the
//! last time, the history is indexed: it is complete by then.

use std::{
    collections::hash_map::RandomState,
    sync::Arc,
    time::{Duration, Instant},
};

use annals_eventstore::{Position, postgres::Checkpoint};
use futures::{TryStreamExt, future::try_join_all};
use tokio::{
    sync::{mpsc, oneshot},
    task::JoinSet,
};

use super::{
    ended,
    follow::follow_to,
    pages::pages,
    place::Place,
    progress::Phase,
    shard::{Shard, Tally, Told, copy_new, touches},
};
use crate::{
    engine::failed,
    error::Error,
    fail_points::may_fail,
    fold::Folding,
    read_model::{History, ReadModel},
    target::{Beside, begin},
    worker::{may_be_of_an_event, parking::Parked},
};

/// How often rows are written: as much work is lost in a kill.
const WRITTEN: Duration = Duration::from_secs(15);

/// Folds the log from the checkpoint to a position that is safe to read, or further if the log has grown much
/// meanwhile, and indexes the history. Returns how many events that were.
pub(super) async fn fill<R: ReadModel>(
    place: &Place<R>,
    checkpoint: &mut Checkpoint,
    end: Position,
) -> Result<u64, Error> {
    let mut filling = Filling {
        place,
        shards: Vec::new(),
        tasks: JoinSet::new(),
        // The same for all pages, so that a key is in one shard.
        hash: Arc::new(RandomState::new()),
        parked: place.parked().await?,
        reached: checkpoint.position(),
        written: Instant::now(),
        unwritten: 0,
        events: 0,
    };
    let mut events = 0;
    while let Err(error) = filling.run(checkpoint, end).await {
        // What shards have beyond the checkpoint is nothing to build on.
        match error {
            Error::Event(failure) => {
                place.park(checkpoint, &mut filling.parked, failure).await?;
                forget_beyond(place, checkpoint).await?;
            }
            // One of many rows is refused. Batch by batch it is found. If all are written, it is none of them.
            error if may_be_of_an_event(&error) && checkpoint.position() < filling.reached => {
                forget_beyond(place, checkpoint).await?;
                events += follow_to(place, checkpoint, filling.reached, None).await?;
                filling.parked = place.parked().await?;
            }
            error => return Err(error),
        }
    }
    Ok(events + filling.events)
}

/// Deletes what was copied into the history and is beyond the checkpoint.
pub(super) async fn forget_beyond<R: ReadModel>(
    place: &Place<R>,
    checkpoint: &Checkpoint,
) -> Result<(), Error> {
    if R::HISTORY == History::None {
        return Ok(());
    }
    let sql = format!("delete from {} where valid_to > $1", place.table().history);
    let transaction = place.holding(checkpoint).await?;
    let client = transaction.client()?;
    let forgotten = client.execute(&sql, &[&checkpoint.position().get()]).await;
    forgotten.map_err(failed::<R>("go back to what was written"))?;
    Ok(transaction.commit().await?)
}

/// A shard, as whoever feeds it knows it.
struct Fed<R: ReadModel> {
    sender: mpsc::Sender<Told<R>>,
    /// How many touches of rows it was told.
    told: usize,
    tally: Arc<Tally>,
}

struct Filling<'a, R: ReadModel> {
    place: &'a Place<R>,
    shards: Vec<Fed<R>>,
    tasks: JoinSet<Result<(), Error>>,
    hash: Arc<RandomState>,
    parked: Parked,
    /// Up to where shards have events.
    reached: Position,
    /// When rows were written last.
    written: Instant,
    /// How many events are in rows that are not written, and how many in those that are.
    unwritten: u64,
    events: u64,
}

impl<R: ReadModel> Filling<'_, R> {
    /// Folds until it is done, or something fails. No shard is at work afterwards.
    async fn run(&mut self, checkpoint: &mut Checkpoint, end: Position) -> Result<(), Error> {
        self.place.reporter.phase(Phase::Building);
        (self.reached, self.written, self.unwritten) = (checkpoint.position(), Instant::now(), 0);
        for _ in 0..self.place.options.shards {
            let (sender, told) = mpsc::channel(2);
            let tally = Arc::default();
            self.tasks.spawn(Shard::of(self.place, checkpoint, &tally).run(told));
            self.shards.push(Fed { sender, told: 0, tally });
        }
        let outcome = self.fill(checkpoint, end).await;
        self.shards.clear();
        let failure = self.failure().await;
        // A shard says better why than who could not reach it.
        outcome.map_err(|error| failure.unwrap_or(error))
    }

    async fn fill(&mut self, checkpoint: &mut Checkpoint, end: Position) -> Result<(), Error> {
        let mut next = Some(end);
        while let Some(end) = next {
            self.fold(checkpoint, end).await?;
            next = self.place.goes_on_to(end).await?;
        }
        let handed = self.hand_out().await?;
        let write = async {
            let handed = handed;
            self.write(checkpoint, self.reached, &handed).await
        };
        let (written, indexed) = tokio::join!(write, self.place.index_history());
        written?;
        self.events += self.unwritten;
        indexed
    }

    /// Folds the log up to a position.
    async fn fold(&mut self, checkpoint: &mut Checkpoint, end: Position) -> Result<(), Error> {
        let Place { options, reporter, throttle, .. } = self.place;
        let mut pages = std::pin::pin!(pages(self.place, &self.hash, self.reached, end));
        while let Some(page) = pages.try_next().await? {
            self.reached = page.to;
            for failure in page.failures {
                if !self.parked.contains_key(&failure.stream) {
                    self.place.park(checkpoint, &mut self.parked, failure.into()).await?;
                }
            }
            for (shard, mut steps) in std::iter::zip(&mut self.shards, page.steps) {
                if !self.parked.is_empty() {
                    steps.retain(|step| {
                        let at = self.parked.get(step.stream());
                        at.is_none_or(|at| step.position < at.position)
                    });
                }
                shard.told += touches(&steps);
                shard.tell(Told::Steps(steps)).await?;
            }
            let rows: usize = self.shards.iter().map(|shard| shard.tally.at_most(shard.told)).sum();
            self.unwritten += page.events as u64;
            reporter.moved(page.events, page.to, end);
            if rows >= options.rows_in_memory || self.written.elapsed() > WRITTEN {
                let handed = self.hand_out().await?;
                self.write(checkpoint, page.to, &handed).await?;
                self.events += std::mem::take(&mut self.unwritten);
                self.take_back(handed).await?;
                self.written = Instant::now();
            }
            throttle.took(page.events).await;
        }
        Ok(())
    }

    /// The rows of all shards. All history up to here is copied.
    async fn hand_out(&self) -> Result<Vec<Folding<R>>, Error> {
        let mut all = Vec::new();
        for shard in &self.shards {
            let (hand, handed) = oneshot::channel();
            shard.tell(Told::Hand(hand)).await?;
            all.push(handed);
        }
        try_join_all(all).await.map_err(|_| unreachable_shard::<R>())
    }

    /// Writes the rows of all shards with the checkpoint.
    async fn write(
        &self,
        checkpoint: &mut Checkpoint,
        to: Position,
        all: &[Folding<R>],
    ) -> Result<(), Error> {
        let Place { database, rows, options, at_once, .. } = self.place;
        let _permit = at_once.acquire().await;
        let patience = options.lease.time_to_live;
        let transaction = begin(database, checkpoint, &Beside::default(), to, patience).await?;
        let client = transaction.client()?;
        for folding in all {
            let changes = folding.changes();
            copy_new(rows, client, &changes.new).await?;
            rows.rewrite(client, &changes).await?;
        }
        may_fail!("rebuild-writing");
        transaction.commit().await?;
        checkpoint.moved(to);
        Ok(())
    }

    /// Gives the shards back what was written, unless that is too much.
    async fn take_back(&self, all: Vec<Folding<R>>) -> Result<(), Error> {
        let known: usize = all.iter().map(Folding::len).sum();
        let are_kept = known <= self.place.options.rows_in_memory / 2;
        for (shard, mut folding) in std::iter::zip(&self.shards, all) {
            if are_kept {
                folding.written();
            } else {
                folding = Folding::default();
            }
            shard.tally.goes_on_with(folding.len());
            shard.tell(Told::Take(folding)).await?;
        }
        Ok(())
    }

    /// Why shards ended, after all have. Of an event that failed, only if nothing else did: what is tried
    /// without that event must find everything else as it should be. One that panicked comes first: what it was
    /// copying may not have ended.
    async fn failure(&mut self) -> Option<Error> {
        let (mut failure, mut panic) = (None, None);
        while let Some(outcome) = self.tasks.join_next().await {
            match outcome {
                Ok(Ok(())) => {}
                Ok(Err(error)) if matches!(failure, None | Some(Error::Event(_))) => {
                    failure = Some(error);
                }
                Ok(Err(_)) => {}
                Err(error) => panic = Some(ended(error)),
            }
        }
        panic.or(failure)
    }
}

impl<R: ReadModel> Fed<R> {
    async fn tell(&self, told: Told<R>) -> Result<(), Error> {
        self.sender.send(told).await.map_err(|_| unreachable_shard::<R>())
    }
}

/// Whose channel is closed has failed, and says why when it is asked.
fn unreachable_shard<R: ReadModel>() -> Error {
    Error::Rebuild { source: format!("a part of the rebuild of {:?} has ended", R::TABLE).into() }
}
