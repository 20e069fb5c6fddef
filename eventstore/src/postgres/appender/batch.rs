//! Gathering what waits into batches.

use std::{
    collections::{HashSet, VecDeque},
    sync::Arc,
};

use tokio::sync::mpsc;

use super::{
    failure::Failure,
    queue::{Lane, Pending, Queue},
};
use crate::{backend::Request, ids::StreamId, store::Options};

/// How much one statement carries at most.
const MAX_APPENDS: usize = 512;
const MAX_EVENTS: usize = 8192;
const MAX_BYTES: usize = 32 * 1024 * 1024;

/// What waits to be sent.
pub(super) struct Gathering {
    receiver: mpsc::UnboundedReceiver<Pending>,
    /// Appends whose stream or key was in an earlier batch already; they go first into the next.
    deferred: VecDeque<Pending>,
    lane: Lane,
    queue: Arc<Queue>,
    max_appends: usize,
}

impl Gathering {
    pub(super) fn new(
        receiver: mpsc::UnboundedReceiver<Pending>,
        lane: Lane,
        queue: Arc<Queue>,
        options: &Options,
    ) -> Self {
        // Times that callers supply rise within an append, not from one append to the next.
        let max_appends = if options.clock.is_supplied() { 1 } else { MAX_APPENDS };
        Self { receiver, deferred: VecDeque::new(), lane, queue, max_appends }
    }

    /// The next batch: no two of its appends share a stream or a key. `None` at the end.
    pub(super) async fn next(&mut self) -> Option<Vec<Pending>> {
        loop {
            let batch = self.gather().await?;
            // Only now: until it is sent, a caller may give its append up.
            let batch: Vec<_> = batch.into_iter().filter(Pending::take).collect();
            if !batch.is_empty() {
                return Some(batch);
            }
        }
    }

    async fn gather(&mut self) -> Option<Vec<Pending>> {
        let mut batch = Batch::default();
        for pending in std::mem::take(&mut self.deferred) {
            if batch.appends.len() == self.max_appends {
                self.deferred.push_back(pending);
            } else {
                self.add(pending, &mut batch);
            }
        }
        if batch.appends.is_empty() {
            let first = self.receive().await?;
            self.add(first, &mut batch);
            // Whoever is about to append as well gets to the queue first: many of them have just been
            // answered together. It takes no longer than their own work does.
            tokio::task::yield_now().await;
        }
        while batch.appends.len() < self.max_appends
            && batch.events < MAX_EVENTS
            && batch.bytes < MAX_BYTES
            && self.deferred.len() < MAX_APPENDS
        {
            match self.receiver.try_recv() {
                Ok(pending) => self.add(pending, &mut batch),
                Err(_) => break,
            }
        }
        if self.queue.cut.is_cancelled() {
            self.refuse_all(batch);
            return None;
        }
        Some(batch.appends)
    }

    /// The next that was accepted. Once the queue closes, it takes no more and hands out the rest.
    async fn receive(&mut self) -> Option<Pending> {
        tokio::select! {
            biased;
            () = self.queue.closing.cancelled(), if !self.receiver.is_closed() => {
                self.receiver.close();
                self.receiver.recv().await
            }
            pending = self.receiver.recv() => pending,
        }
    }

    fn add(&mut self, pending: Pending, batch: &mut Batch) {
        if self.lane.holds(&pending.request) {
            self.lane.divert(pending);
        } else {
            batch.add(pending, &mut self.deferred);
        }
    }

    /// Answers all that is left.
    fn refuse_all(&mut self, batch: Batch) {
        self.receiver.close();
        let left = std::iter::from_fn(|| self.receiver.try_recv().ok());
        for pending in batch.appends.into_iter().chain(self.deferred.drain(..)).chain(left) {
            self.queue.fail(pending, &Failure::Closed);
        }
    }
}

#[derive(Default)]
struct Batch {
    appends: Vec<Pending>,
    events: usize,
    bytes: usize,
    streams: HashSet<StreamId>,
    keys: HashSet<String>,
}

impl Batch {
    fn add(&mut self, pending: Pending, deferred: &mut VecDeque<Pending>) {
        let Request { streams, keys, .. } = &pending.request;
        let free = streams.iter().all(|(stream, _)| !self.streams.contains(stream))
            && keys.iter().all(|key| !self.keys.contains(&key.key));
        // Also the names of a deferred append: a later one must not overtake it.
        self.streams.extend(streams.iter().map(|(stream, _)| stream.clone()));
        self.keys.extend(keys.iter().map(|key| key.key.clone()));
        if free {
            self.events += pending.request.events.len();
            let events = pending.request.events.iter();
            self.bytes += events.map(|(_, event)| event.bytes).sum::<usize>();
            self.appends.push(pending);
        } else {
            deferred.push_back(pending);
        }
    }
}
