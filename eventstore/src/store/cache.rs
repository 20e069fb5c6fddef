//! The aggregate cache: states that were folded before, so that a command need not fold them again.
//!
//! What is cached may be behind the log, for other processes append too. So nothing rests on it alone:
//! an append is conditional on the cached version, and a decision that leads to no append is confirmed
//! by looking for newer events.

use std::{
    any::{Any, TypeId},
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
};

use tokio::sync::{Mutex, OwnedMutexGuard};

use super::state::State;
use crate::{
    aggregate::Aggregate,
    ids::{StreamId, Version},
};

/// How often a state was asked for, by whether it was there.
const LOOKUPS: &str = "annals_aggregate_cache_lookups_total";

/// What an entry costs beside the state.
const OVERHEAD: u32 = 256;
/// What the content of a state is taken for until it is weighed: that of a small one after some events.
const CONTENT: usize = 256;

type Key = (TypeId, StreamId);

/// The states of one store, of all its aggregates, within one limit of bytes.
#[derive(Clone)]
pub(super) struct Cache(Option<moka::sync::Cache<Key, Shared>>);

/// An entry, whatever its type of aggregate.
#[derive(Clone)]
struct Shared {
    entry: Arc<dyn Any + Send + Sync>,
    weight: Arc<AtomicU32>,
}

/// One task at a time works with an entry: of two commands on one stream, the second one would only
/// lose to the first.
type Entry<A> = Mutex<Option<State<A>>>;

impl Cache {
    /// A cache of so many bytes; none, if 0.
    pub(super) fn new(bytes: u64) -> Self {
        Self((bytes > 0).then(|| {
            moka::sync::Cache::builder()
                .max_capacity(bytes)
                .weigher(|key: &Key, shared: &Shared| {
                    let name = key.1.category().len() + key.1.key().len();
                    (shared.weight.load(Ordering::Relaxed))
                        .saturating_add(OVERHEAD)
                        .saturating_add(name as u32)
                })
                .build()
        }))
    }

    /// Takes hold of a stream's entry, once those who hold it let it go.
    pub(super) async fn hold<A: Aggregate>(&self, stream: &StreamId) -> Held<A> {
        let (entry, shared) = self.entry::<A>(stream);
        let mut guard = entry.lock_owned().await;
        let state = guard.take();
        self.count::<A>(state.is_some());
        Held { stream: stream.clone(), state, is_stale: false, guard, shared }
    }

    /// A copy of what is cached, where there is something that can be copied and nobody holds it.
    pub(super) fn copy<A: Aggregate>(&self, stream: &StreamId) -> Option<State<A>> {
        self.0.as_ref()?;
        let (entry, _) = self.entry::<A>(stream);
        let copy = entry.try_lock().ok().and_then(|guard| guard.as_ref()?.duplicate());
        self.count::<A>(copy.is_some());
        copy
    }

    /// Counts whether something was there.
    fn count<A: Aggregate>(&self, found: bool) {
        if self.0.is_some() {
            let outcome = if found { "hit" } else { "miss" };
            metrics::counter!(LOOKUPS, "category" => A::CATEGORY, "outcome" => outcome)
                .increment(1);
        }
    }

    /// Caches a state that was loaded, if nobody holds the entry and it is newer than what is there. Of a
    /// stream that has no events, or is deleted, nothing is kept.
    pub(super) fn offer<A: Aggregate>(&self, stream: &StreamId, state: &State<A>) {
        let (entry, shared) = self.entry::<A>(stream);
        let Ok(mut guard) = entry.try_lock_owned() else { return };
        if state.loaded.version == Version::NONE {
            *guard = None;
            return;
        }
        let known = guard.as_ref().map(|state| state.loaded.version);
        if known.is_none_or(|version| version < state.loaded.version) {
            let state = state.duplicate();
            let stream = stream.clone();
            self.put(Held { stream, state, is_stale: false, guard, shared });
        } else if let Some(cached) = guard.as_mut() {
            cached.snapshot = cached.snapshot.max(state.snapshot);
        }
    }

    fn entry<A: Aggregate>(&self, stream: &StreamId) -> (Arc<Entry<A>>, Option<Shared>) {
        let new = || Arc::new(Entry::<A>::new(None));
        let Some(cache) = &self.0 else { return (new(), None) };
        let key = (TypeId::of::<A>(), stream.clone());
        let weight = (size_of::<State<A>>() + CONTENT) as u32;
        let shared = || Shared { entry: new(), weight: Arc::new(AtomicU32::new(weight)) };
        let shared = cache.get_with(key, shared);
        match shared.entry.clone().downcast::<Entry<A>>() {
            Ok(entry) => (entry, Some(shared)),
            // The key names the type, so this does not happen; it would only be a miss.
            Err(_) => (new(), None),
        }
    }

    /// Gives a state back, for the next who needs it.
    pub(super) fn put<A: Aggregate>(&self, held: Held<A>) {
        let Held { stream, state, mut guard, shared, .. } = held;
        let (Some(cache), Some(shared), Some(mut state)) = (&self.0, shared, state) else { return };
        // Of a stream without events there is nothing to spare; if it is deleted, a decision on nothing
        // would be in vain.
        if !state.forget_decided() || state.loaded.version == Version::NONE {
            return;
        }
        state.is_current = false;
        let weight = u32::try_from(state.weight()).unwrap_or(u32::MAX);
        let known = shared.weight.load(Ordering::Relaxed);
        *guard = Some(state);
        drop(guard);
        // The cache weighs what is inserted, which costs more than to find it again. So it is repeated only
        // where the weight, as the cache counts it, is really another.
        let [counted, real] = [known, weight].map(|weight| weight.saturating_add(OVERHEAD));
        if real > counted.saturating_add(counted / 4) || real < counted / 2 {
            shared.weight.store(weight, Ordering::Relaxed);
            cache.insert((TypeId::of::<A>(), stream), shared);
        }
    }
}

/// A stream's entry in the hands of one task. Dropping it forgets the state.
pub(super) struct Held<A: Aggregate> {
    pub(super) stream: StreamId,
    /// `None` if nothing is cached.
    pub(super) state: Option<State<A>>,
    /// It is known that the log holds more.
    pub(super) is_stale: bool,
    guard: OwnedMutexGuard<Option<State<A>>>,
    shared: Option<Shared>,
}
