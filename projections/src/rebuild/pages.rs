//! Pages of the log, read ahead and decoded side by side, in their order.

use std::{
    collections::{VecDeque, hash_map::RandomState},
    hash::BuildHasher,
    sync::Arc,
};

use annals_eventstore::{Position, Recorded};
use futures::{Stream, TryStreamExt, stream};
use tokio::sync::mpsc;
use tokio_util::task::AbortOnDropHandle;
use tracing::Instrument;

use super::{ended, place::Place};
use crate::{
    engine::Steps,
    error::{Error, EventFailure},
    page::Pages,
    read_model::{ReadModel, Step},
};

/// How many events are read at once.
const PAGE: usize = 4000;
/// How many pages are read ahead, and how many are decoded at the same time.
const AHEAD: usize = 2;

/// A page of the log, decoded.
pub(super) struct Page<R: ReadModel> {
    pub(super) to: Position,
    pub(super) events: usize,
    /// What each shard gets.
    pub(super) steps: Vec<Vec<Step<R>>>,
    /// Events that cannot be decoded, or whose rows cannot be made out.
    pub(super) failures: Vec<EventFailure>,
}

/// The log between two positions, of which the second is safe to read. A key is in the shard of its hash.
pub(super) fn pages<R: ReadModel>(
    place: &Place<R>,
    hash: &Arc<RandomState>,
    after: Position,
    end: Position,
) -> impl Stream<Item = Result<Page<R>, Error>> + Send + use<R> {
    // In a task of its own, so that reading goes on while pages are folded.
    let (sender, read) = mpsc::channel(1);
    let log = Log {
        pages: place.pages().into(),
        most: place.throttle.at_once(PAGE),
        asked: VecDeque::new(),
    };
    let reading = AbortOnDropHandle::new(tokio::spawn(log.read(after, end, sender)));
    let read = stream::unfold((read, reading), |(mut read, reading)| async {
        read.recv().await.map(|page| (page, (read, reading)))
    });
    let (steps, shards) = (place.steps.clone(), place.options.shards);
    let hash = hash.clone();
    read.map_ok(move |crate::page::Page { events, to }| {
        let (steps, hash) = (steps.clone(), hash.clone());
        let decode = tokio::task::spawn_blocking(move || decode(&steps, &hash, events, to, shards));
        async move { decode.await.map_err(ended) }
    })
    .try_buffered(AHEAD)
}

type Read = Result<crate::page::Page, Error>;

/// The log, as it is read for a rebuild.
struct Log {
    pages: Arc<Pages>,
    /// How many events a page may have.
    most: usize,
    /// Pages on their way, in their order: up to where each goes if it holds that much.
    asked: VecDeque<(Position, AbortOnDropHandle<Read>)>,
}

impl Log {
    /// Reads page after page. Where the log has few holes, it is known where a page ends before it is there, and
    /// the next one is read beside it.
    async fn read(mut self, after: Position, end: Position, sender: mpsc::Sender<Read>) {
        // Up to where it has read, and where the next page begins.
        let (mut reached, mut next) = (after, after);
        let mut is_dense = false;
        while reached < end {
            while next < end && self.asked.len() < if is_dense { AHEAD } else { 1 } {
                let to = if is_dense { end.min(next.plus(self.most)) } else { end };
                self.asked.push_back((to, self.page(next, to)));
                next = to;
            }
            let Some((to, page)) = self.asked.pop_front() else { return };
            let page = page.await.unwrap_or_else(|error| Err(ended(error)));
            match &page {
                Ok(page) => {
                    is_dense = page.to.get() - reached.get() <= 2 * page.events.len() as i64;
                    reached = page.to;
                }
                Err(_) => reached = end,
            }
            if self.asked.is_empty() {
                next = reached;
            } else if reached < to {
                // It was cut short, since events are large or may be. What it left comes before what was asked since.
                self.asked.push_front((to, self.page(reached, to)));
            }
            if sender.send(page).await.is_err() {
                return;
            }
        }
    }

    fn page(&self, after: Position, to: Position) -> AbortOnDropHandle<Read> {
        let (pages, most) = (self.pages.clone(), self.most);
        let page = async move { pages.next(after, to, most).await };
        AbortOnDropHandle::new(tokio::spawn(page.in_current_span()))
    }
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
            Ok(decoded) => decoded.into_iter().flatten().for_each(|step| page.add(hash, step)),
            Err(failure) => page.failures.push(*failure),
        }
    }
    page
}

impl<R: ReadModel> Page<R> {
    /// Gives a step to the shards that its rows are in.
    fn add(&mut self, hash: &RandomState, step: Step<R>) {
        let shards = self.steps.len();
        let shard = |key: &R::Key| match shards {
            1 => 0,
            _ => (hash.hash_one(key) % shards as u64) as usize,
        };
        match step.keys.as_slice() {
            [] => {}
            [key] => self.steps[shard(key)].push(step),
            keys => {
                let mut of_shards = vec![Vec::new(); shards];
                keys.iter().for_each(|key| of_shards[shard(key)].push(key.clone()));
                for (steps, keys) in std::iter::zip(&mut self.steps, of_shards) {
                    if !keys.is_empty() {
                        steps.push(step.for_keys(keys));
                    }
                }
            }
        }
    }
}
