//! Folding the log into empty tables, in parallel and in bounded memory.
//!
//! Pages of the log are read ahead, decoded side by side, and taken in their order. Each row belongs to one
//! shard, by a hash of its key, so each row meets its events in order. Now and then all shards hand their
//! rows out, which are written together with the checkpoint.

use std::{
    collections::{HashMap, hash_map::RandomState},
    hash::BuildHasher,
    sync::Arc,
    time::{Duration, Instant},
};

use annals_eventstore::{Position, Recorded, StreamId, postgres::Checkpoint};
use futures::{Stream, StreamExt, TryStreamExt, stream};
use tokio::{
    sync::{mpsc, oneshot},
    task::JoinSet,
};

use super::{
    Options,
    place::Place,
    progress::{Phase, Reporter},
    shard::{Shard, Told, copy_new},
};
use crate::{
    engine::{Steps, failed},
    error::{Error, EventFailure},
    fold::Folding,
    guard::panicked,
    page::Pages,
    read_model::{History, ReadModel, Step},
    target::begin,
    worker::parking::ParkedAt,
};

/// How many events are read at once.
const PAGE: usize = 4000;
/// How many pages are decoded at the same time.
const DECODED: usize = 2;
/// How often rows are written: as much work is lost in a kill.
const WRITTEN: Duration = Duration::from_secs(15);

/// Folds the log from the checkpoint to its present end. Returns how many events that were.
pub(super) async fn fill<R: ReadModel>(
    place: &Place<R>,
    checkpoint: &mut Checkpoint,
    options: Options,
    reporter: &Reporter,
) -> Result<u64, Error> {
    reporter.phase(Phase::Building);
    let end = place.store.safe_position().await?;
    if checkpoint.position() >= end {
        return Ok(0);
    }
    forget_beyond(place, checkpoint).await?;
    let mut filling = Filling {
        place,
        options,
        shards: Vec::new(),
        tasks: JoinSet::new(),
        parked: place.parked().await?,
    };
    let mut events = 0;
    loop {
        filling.start(checkpoint);
        let outcome = filling.fill(checkpoint, end, reporter, &mut events).await;
        filling.shards.clear();
        let outcome = match outcome {
            // A shard says better why than who could not reach it.
            Err(error) => Err(filling.failure().await.unwrap_or(error)),
            done => done,
        };
        match outcome {
            Ok(()) => return Ok(events),
            // Other shards are beyond that event; all go back to what was written, without its stream.
            Err(Error::Event(failure)) => {
                place.park(&mut filling.parked, failure).await?;
                forget_beyond(place, checkpoint).await?;
            }
            Err(error) => return Err(error),
        }
    }
}

/// Deletes what was copied into the history and is beyond the checkpoint.
async fn forget_beyond<R: ReadModel>(
    place: &Place<R>,
    checkpoint: &Checkpoint,
) -> Result<(), Error> {
    if R::HISTORY == History::None {
        return Ok(());
    }
    let sql = format!("delete from {} where valid_to > $1", place.table().history);
    let client = place.database.client().await?;
    let forgotten = client.execute(&sql, &[&checkpoint.position().get()]).await;
    forgotten.map(drop).map_err(failed::<R>("go back to what was written"))
}

struct Filling<'a, R: ReadModel> {
    place: &'a Place<R>,
    options: Options,
    shards: Vec<mpsc::Sender<Told<R>>>,
    tasks: JoinSet<Result<(), Error>>,
    parked: HashMap<StreamId, ParkedAt>,
}

/// A page of the log, decoded.
struct Page<R: ReadModel> {
    to: Position,
    events: usize,
    /// What each shard gets.
    steps: Vec<Vec<Step<R>>>,
    failures: Vec<Box<EventFailure>>,
}

impl<R: ReadModel> Filling<'_, R> {
    fn start(&mut self, checkpoint: &Checkpoint) {
        for _ in 0..self.options.shards {
            let shard = Shard {
                database: self.place.database.clone(),
                rows: self.place.rows.clone(),
                checkpoint: checkpoint.clone(),
                stored: checkpoint.position() > Position::START,
                folding: Folding::default(),
            };
            let (sender, told) = mpsc::channel(2);
            self.tasks.spawn(shard.run(told));
            self.shards.push(sender);
        }
    }

    async fn fill(
        &mut self,
        checkpoint: &mut Checkpoint,
        end: Position,
        reporter: &Reporter,
        events: &mut u64,
    ) -> Result<(), Error> {
        let started = (Instant::now(), *events);
        let mut written = Instant::now();
        let mut pages = std::pin::pin!(self.pages(checkpoint.position(), end));
        let mut rows = 0;
        while let Some(page) = pages.try_next().await? {
            for failure in page.failures {
                if !self.parked.contains_key(&failure.stream) {
                    self.place.park(&mut self.parked, failure).await?;
                }
            }
            for (shard, mut steps) in std::iter::zip(&self.shards, page.steps) {
                if !self.parked.is_empty() {
                    steps.retain(|step| {
                        let at = self.parked.get(step.stream());
                        at.is_none_or(|at| step.position < at.position)
                    });
                }
                rows += steps.len();
                shard.send(Told::Steps(steps)).await.map_err(|_| unreachable_shard::<R>())?;
            }
            *events += page.events as u64;
            reporter.moved(page.events, page.to, end);
            // A step may touch a row that is known; there are never more rows than steps.
            if rows >= self.options.rows_in_memory || written.elapsed() > WRITTEN {
                rows = self.write(checkpoint, page.to).await?;
                written = Instant::now();
            }
            if let Some(limit) = self.options.events_per_second {
                let due = (*events - started.1) as f64 / f64::from(limit);
                tokio::time::sleep_until((started.0 + Duration::from_secs_f64(due)).into()).await;
            }
        }
        self.write(checkpoint, end).await.map(drop)
    }

    /// Writes the rows of all shards with the checkpoint. Returns how many stay in memory.
    async fn write(&mut self, checkpoint: &mut Checkpoint, to: Position) -> Result<usize, Error> {
        let mut all = Vec::new();
        for shard in &self.shards {
            let (hand, handed) = oneshot::channel();
            shard.send(Told::Hand(hand)).await.map_err(|_| unreachable_shard::<R>())?;
            all.push(handed);
        }
        let all = futures::future::try_join_all(all).await.map_err(|_| unreachable_shard::<R>())?;
        let Place { database, rows, .. } = self.place;
        let patience = self.options.lease.time_to_live;
        let transaction = begin(database, checkpoint, None, to, patience).await?;
        let client = transaction.client()?;
        for folding in &all {
            copy_new(rows, client, &folding.changes().new).await?;
            rows.rewrite(client, folding).await?;
        }
        transaction.commit().await?;
        checkpoint.moved(to);
        let known: usize = all.iter().map(Folding::len).sum();
        let keep = known <= self.options.rows_in_memory / 2;
        for (shard, mut folding) in std::iter::zip(&self.shards, all) {
            if keep {
                folding.written();
            } else {
                folding = Folding::default();
            }
            shard.send(Told::Take(folding)).await.map_err(|_| unreachable_shard::<R>())?;
        }
        Ok(if keep { known } else { 0 })
    }

    /// Decoded pages of the log, in order.
    fn pages(
        &self,
        after: Position,
        end: Position,
    ) -> impl Stream<Item = Result<Page<R>, Error>> + use<R> {
        let pages = Arc::new(Pages::of(&self.place.store, &self.place.categories));
        let read = stream::try_unfold(after, move |after| {
            let pages = pages.clone();
            async move {
                if after >= end {
                    return Ok(None);
                }
                let page = pages.next(after, end, PAGE).await?;
                let to = page.to;
                Ok::<_, Error>(Some(((page.events, to), to)))
            }
        });
        let (steps, shards) = (self.place.steps.clone(), self.options.shards);
        // The same for all pages, so that a key is in one shard.
        let hash = Arc::new(RandomState::new());
        // Read ahead in a task of its own, so that reading goes on while pages are decoded.
        let (sender, read_ahead) = mpsc::channel(DECODED);
        let reading = tokio_util::task::AbortOnDropHandle::new(tokio::spawn(async move {
            let mut read = std::pin::pin!(read);
            while let Some(page) = read.next().await {
                if sender.send(page).await.is_err() {
                    break;
                }
            }
        }));
        let read_ahead = stream::unfold((read_ahead, reading), |(mut pages, reading)| async {
            pages.recv().await.map(|page| (page, (pages, reading)))
        });
        read_ahead
            .map_ok(move |(events, to)| {
                let (steps, hash) = (steps.clone(), hash.clone());
                let decode =
                    tokio::task::spawn_blocking(move || decode(&steps, &*hash, events, to, shards));
                async move {
                    decode.await.map_err(|error| match error.try_into_panic() {
                        Ok(panic) => Error::Rebuild { source: panicked(&*panic) },
                        Err(error) => Error::Rebuild { source: error.into() },
                    })
                }
            })
            .try_buffered(DECODED)
    }

    /// Why a shard ended, if one failed.
    async fn failure(&mut self) -> Option<Error> {
        let mut failure = None;
        while let Some(ended) = self.tasks.join_next().await {
            match ended {
                Ok(Err(error)) => failure = failure.or(Some(error)),
                Ok(Ok(())) => {}
                Err(error) => failure = failure.or(Some(Error::Rebuild { source: error.into() })),
            }
        }
        failure
    }
}

/// Whose channel is closed has failed, and says why when it is asked.
fn unreachable_shard<R: ReadModel>() -> Error {
    Error::Rebuild { source: format!("a part of the rebuild of {:?} has ended", R::TABLE).into() }
}

fn decode<R: ReadModel>(
    steps: &Steps<R>,
    hash: &RandomState,
    events: Vec<Recorded>,
    to: Position,
    shards: usize,
) -> Page<R> {
    let mut page = Page { to, events: events.len(), steps: Vec::new(), failures: Vec::new() };
    page.steps.resize_with(shards, || Vec::with_capacity(events.len() / shards + 16));
    for event in events {
        // Later events of a stream that failed are left out where the pages are taken in order.
        match steps.step(event) {
            Ok(decoded) => decoded.into_iter().flatten().for_each(|step| {
                let shard = |key: &R::Key| hash.hash_one(key) as usize % shards;
                match step.keys.as_slice() {
                    [] => {}
                    [key] => page.steps[shard(key)].push(step),
                    keys => {
                        let mut of_shards = vec![Vec::new(); shards];
                        keys.iter().for_each(|key| of_shards[shard(key)].push(key.clone()));
                        for (shard, keys) in of_shards.into_iter().enumerate() {
                            if !keys.is_empty() {
                                page.steps[shard].push(step.for_keys(keys));
                            }
                        }
                    }
                }
            }),
            Err(failure) => page.failures.push(failure),
        }
    }
    page
}
