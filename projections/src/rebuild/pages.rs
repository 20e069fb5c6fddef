//! Pages of the log, read ahead and decoded side by side, in their order.

use std::{collections::hash_map::RandomState, hash::BuildHasher, sync::Arc};

use annals_eventstore::{Position, Recorded};
use futures::{Stream, TryStreamExt, stream};
use tokio::sync::mpsc;
use tokio_util::task::AbortOnDropHandle;

use super::place::Place;
use crate::{
    engine::Steps,
    error::{Error, EventFailure},
    guard::panicked,
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

/// The log between two positions, of which the second is safe to read.
pub(super) fn pages<R: ReadModel>(
    place: &Place<R>,
    after: Position,
    end: Position,
) -> impl Stream<Item = Result<Page<R>, Error>> + Send + use<R> {
    let events = place.events(after, end).page_size(place.throttle.at_once(PAGE));
    let mut cursor = place.store.cursor(events);
    // In a task of its own, so that reading goes on while pages are folded.
    let (sender, read) = mpsc::channel(AHEAD);
    let reading = AbortOnDropHandle::new(tokio::spawn(async move {
        while cursor.position() < end {
            let page = cursor.next_page().await.map(|events| (events, cursor.position()));
            let is_last = page.as_ref().map_or(true, |(events, _)| events.is_empty());
            if sender.send(page).await.is_err() || is_last {
                break;
            }
        }
    }));
    let read = stream::unfold((read, reading), |(mut read, reading)| async {
        read.recv().await.map(|page| (page.map_err(Error::from), (read, reading)))
    });
    let (steps, shards) = (place.steps.clone(), place.options.shards);
    // The same for all pages, so that a key is in one shard.
    let hash = Arc::new(RandomState::new());
    read.map_ok(move |(events, to)| {
        let (steps, hash) = (steps.clone(), hash.clone());
        let decode = tokio::task::spawn_blocking(move || decode(&steps, &hash, events, to, shards));
        async move {
            decode.await.map_err(|error| match error.try_into_panic() {
                Ok(panic) => Error::Rebuild { source: panicked(&*panic) },
                Err(error) => Error::Rebuild { source: error.into() },
            })
        }
    })
    .try_buffered(AHEAD)
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
